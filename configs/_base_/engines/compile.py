"""torch.compile of the student's networks; connectors, losses and the teacher stay as they are."""

compile = True
