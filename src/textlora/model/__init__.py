"""Encoder, adapter, head, and the engine that computes them.

Modules:
    adapter_plan      Which matrices get a low-rank adapter, and what that costs exactly.
    adapters          Adapters attached to a model with PEFT, exactly as planned, and merged into
                      it again.
    attention         Attention by whichever kernel is faster on the device.
    batching          Token ids without padding, and the order in which texts meet the model.
    encoder           Pretrained encoders and their tokenizers, loaded with a head for our labels.
    encoder_config    The sizes of an encoder of a well-known family, read off its config.json
                      without transformers.
    encoder_files     Where the files of a pretrained encoder lie, and fingerprints of them.
    encoder_weights   The weight files of an encoder: which there are, which are loaded, and the
                      names in them.
    engine            The forward pass of a classifier over real tokens only.
    heads             Linear heads: one layer over the first token of a text or over the mean of
                      all its tokens.
    logits            What a backend is: it computes logits of tokenized texts, in groups of
                      similar length.
    number_format     The number format of a model's weights: all cast but the head, which decides
                      labels.
    padding           From rows of real tokens to padded places, which attention reads, and back.
    plain_classifier  Classifiers of the engine's families as plain torch modules, without
                      transformers and PEFT.
    plain_modules     Encoders of the engine's families, and their heads, as plain torch modules
                      without transformers.
    positions         The longest text that an encoder can read, as its configuration says.
    prefix            The output of the layers below the lowest adapted one, computed once and
                      read in each epoch.
    projection        A frozen linear layer with its low-rank update, in place.
    shapes            What a classification model consists of, by name and size: no weights, and
                      mostly no model.
    targets           The setting `adapter.targets`: layers and terms as a recipe names them ->
                      layer by layer.
    token_cache       Token ids of large data sets, kept between runs.
    tokenizer         A tokenizer read from its own file, without transformers, where that gives
                      the same ids.
    torch_backend     Logits of many texts with torch: batches of similar length through the
                      engine.
"""
