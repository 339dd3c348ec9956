"""What MiniDrive's model is trained with; `prune2drive.train` is the task."""
