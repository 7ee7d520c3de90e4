"""Several processes, each with the whole student (MMEngine's DDPStrategy); one without a launcher."""

strategy = dict(type='DDPStrategy')
