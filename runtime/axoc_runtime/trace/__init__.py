"""Peak device memory of a job, traced: the real modelling code under fake tensors on a CPU, no weights, no GPU."""
