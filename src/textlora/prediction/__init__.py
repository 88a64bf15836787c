"""Answers: backends, the predictor, files of any size, clusters.

Modules:
    answer_row           An answer as columns of an output file: Label, LabelText, Confidence.
    backends             Which backend answers: torch, OpenVINO, or the fastest of them that keeps
                         the labels.
    cascade              A quick backend whose close calls an exact one answers again: int8 that
                         keeps the labels.
    chunk_file           A long output that is written chunk by chunk, and goes on where a crash
                         left it.
    converted            A converted classifier beside its run: what a probe found out about it,
                         kept and read again.
    file_prediction      Files of texts in, a file of predictions out, in the same order, in
                         constant memory.
    file_summary         What happened to a file of predictions, counted chunk by chunk.
    inputs               The rows to be predicted: from files, folders, patterns or stdin,
                         numbered, in chunks.
    openvino_backend     The engine as an OpenVINO graph, for CPUs: the same packed batches, in
                         bf16 or int8.
    openvino_conversion  A classifier as an OpenVINO graph: the engine traced, and the graph
                         proved to be the model.
    output_columns       Which columns a file of predictions has, and the rows for them.
    predictor            Texts in, probabilities out: the one path that evaluation, files and the
                         API use.
    ray_engine           The same chunks on Ray Data: one reader, workers that answer, and this
                         process that writes.
    row_encoder          Rows to bytes, a piece at a time: pieces put one after the other are a
                         file.
    shards               Parts of an output that several machines write, and how they become one.
"""
