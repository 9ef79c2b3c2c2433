"""What `evidence.py` is made of: trials that train an encoder on mini-batches of one sampler, and what became of them.

`trial` says what a trial is, `arms` which samplers are compared, and `plans` which trials answer which question.
`task` is what a modality must tell: its data, model, loss and scores; `pairs`, `text`, `graph` and `image` do.
`mini_batches` and `run` train a task, and `clock` tells what mini-batches cost. `record` keeps the results as JSON
lines, `summary` compares arms over paired seeds, and `report` and `plots` make tables and pictures.
"""
