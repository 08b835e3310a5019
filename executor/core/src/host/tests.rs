//! What a host decides, one input at a time.
