"""One page about finished or running trainings, from what lies in their work folders."""
