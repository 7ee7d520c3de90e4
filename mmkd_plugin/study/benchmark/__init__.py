"""What distillation costs: a step of the student alone, of the floor, of ours and of MMRazor, in turns in one process."""
