"""Labelled texts and rows, from any source, in one form.

Modules:
    cleaning          A text as training and prediction read it: the same characters in both.
    columns           The columns of labelled texts, and what their cells mean: text, label, set
                      of labels.
    corrections       A file of labels to review, and what a review of it changes.
    examples          Texts with their labels: counted, sampled, split.
    input_check       Texts and labels as a program hands them over, checked before anything is
                      trained.
    labelled_texts    Labelled texts: found, read, cleaned, matched to labels by name, split,
                      fingerprinted.
    multilabel_cells  Sets of labels as text: several names in one cell, with a separator between
                      them.
    sources           Where labelled texts come from: the Hub, a folder, a file or the package,
                      read as raw splits.
    split_files       Which files of a folder hold which split, by their names: `train.csv`,
                      `test-1.parquet`.
    stratification    A split of texts with sets of labels that keeps the share of each label in
                      both parts.
    tables            Rows from CSV, TSV, JSON lines, Parquet and plain text, with the line each
                      row came from.
"""
