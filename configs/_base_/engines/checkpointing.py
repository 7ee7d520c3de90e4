"""The activations of a ResNet's stages are computed again in the backward pass instead of kept."""

activation_checkpointing = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4']
