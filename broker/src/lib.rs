//! The log: append a batch and be told how safe it is, read a partition from an offset, know where it ends.
//!
//! [`log`] is the contract. `embedded` keeps it in a journal on this machine, `kafka` on Apache Kafka, and `spool` puts
//! the journal in front of Kafka, so that a broker that is down changes no answer.

pub mod log;
