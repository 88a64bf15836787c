"""Files, processes, terminal, Hub and processor.

Modules:
    console      Lines and tables on a terminal.
    files        Files that appear whole or not at all, SHA-256 manifests to prove it, and locks
                 on folders.
    hub          Whether the Hugging Face Hub answers, found out in seconds, not after minutes of
                 retries.
    interrupts   Ctrl-C, SIGTERM and a closed terminal as a wish that is granted between two steps
                 of work.
    progress     What a long command shows while it works: messages on stderr, a bar on a
                 terminal.
    runtime      The machine: seed, device, number format, and a record of the environment.
    sharing      A folder that several processes work in: one at a time writes, and who has died
                 is noticed.
    text_stream  The text of a file or of stdin: decompressed, decoded, and what is wrong with its
                 bytes.
"""
