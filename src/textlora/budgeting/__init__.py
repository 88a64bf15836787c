"""Parameters, bytes, memory and time, before anything is trained.

Modules:
    budget        A parameter budget in, a plan that fits it out: which head, layers, matrices and
                  rank.
    cost          What a plan costs on this machine: bytes of the adapter, memory and time of
                  training.
    flops         How much a plan computes: rows of tokens, and floating-point operations on them.
    footprint     Bytes: of an adapter's file, and of memory while a plan is trained.
    layer_timing  How fast this machine computes a layer of an encoder's sizes: measured in about
                  a second.
    machine       What a plan must know of a machine, and what is measured to know it.
    speed         How fast this machine is, and how it is set up: measured once, kept, and read
                  without torch.
"""
