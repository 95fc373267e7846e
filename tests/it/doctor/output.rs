//! The output of the doctor, its exit codes, and its bounds.
