"""One training step over several processes, with the loss and the gradient that one process would have.

Each process has a part of the step's batch (`share`) and a copy of the model, and the gradient is averaged over the
processes (Li et al.: PyTorch Distributed: Experiences on Accelerating Data Parallel Training, 2020,
https://arxiv.org/abs/2006.15704). Hence the loss of each process is such that its mean over the processes is the loss
of the whole batch:

* the mean over the rows of a process is weighted by `Share.weight`, as parts may differ by one unit;
* what is not a mean over rows is computed from the rows of all processes (`sums`, `norm`), and is the same in each.

Random numbers are drawn for the whole batch by each process, which keeps those of its rows (`draws`). All processes
start an epoch with the same seed, so they draw what one process would have drawn.

With one process, or outside of a step, everything here is what PyTorch does without it.
"""
