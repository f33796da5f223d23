//! After a crash: what ran then, whom it may have been, and how a suspect runs next.

mod awaited_verdicts;
pub mod crash_verdict;
mod judgement;
pub mod lost_holds;
pub mod quarantine;
pub mod recorder;
