"""The optimizer's state spread over processes by DeepSpeed's ZeRO, stage 1; whole without a launcher."""

strategy = dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=1))
