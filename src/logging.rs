//! Log lines: to journald where stderr is the journal, else to stderr.
