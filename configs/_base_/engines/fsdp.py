"""The student's weights, gradients and optimizer spread over processes by torch's FSDP; whole without a launcher."""

strategy = dict(type='FSDPStrategy', model_wrapper=dict(type='MMFullyShardedDataParallel'))
