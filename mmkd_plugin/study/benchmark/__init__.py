"""What distillation costs: steps of the student alone, of the floor, of ours and of MMRazor, in turns."""
