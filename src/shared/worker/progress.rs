//! How far the job of an executor is, as its handler says.

use std::sync::atomic::Ordering;

use super::executor::ExecutorSlot;

/// Bytes of a progress message that are kept.
pub const MESSAGE_BYTES: usize = 128;

/// What job_progress last said.
pub struct Progress {
    pub fraction: Option<f64>,
    pub message: Vec<u8>,
}

impl ExecutorSlot {
    /// `message` in the database's encoding, already cut to MESSAGE_BYTES on a character.
    pub fn set_progress(&self, fraction: f64, message: &[u8]) {
        self.lock.with(|| {
            self.progress.store(fraction.to_bits(), Ordering::Relaxed);
            for (cell, byte) in self.message.iter().zip(message) {
                cell.store(*byte, Ordering::Relaxed);
            }
            self.message_length
                .store(message.len().min(MESSAGE_BYTES) as u32, Ordering::Relaxed);
        });
    }

    pub fn progress(&self) -> Progress {
        let mut bytes = [0u8; MESSAGE_BYTES];
        let (fraction, length) = self.lock.with(|| {
            for (byte, cell) in bytes.iter_mut().zip(&self.message) {
                *byte = cell.load(Ordering::Relaxed);
            }
            (
                f64::from_bits(self.progress.load(Ordering::Relaxed)),
                self.message_length.load(Ordering::Relaxed) as usize,
            )
        });
        Progress {
            fraction: (!fraction.is_nan()).then_some(fraction),
            message: bytes[..length.min(MESSAGE_BYTES)].to_vec(),
        }
    }
}
