//! Workers outside: jobs that are claimed for a time by programs that are no part of the server (job_claim), and what these say
//! of them (job_complete, job_fail, job_extend, job_release, jobs_settle).
//!
//! A lease is a row beside the job's. Its token is what counts: who does not know the one of now changes nothing. Whatever
//! happens to a lease happens to a job whose row is locked first, so that two who know the token come one after the other.

mod claim;
mod done;
mod ending;
mod enter;
mod extend;
pub(super) mod leased_job;
mod outcome;
mod ready;
mod settle;
mod untaken;
mod wait;

use ending::charge;
pub use ending::{expire, of_session, set_back, walk};
