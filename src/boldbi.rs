//! Everything that is particular to Bold BI.
