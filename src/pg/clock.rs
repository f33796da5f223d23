//! The server's clock: microseconds since 2000-01-01 UTC.

use pgrx::pg_sys;

use super::function::Timestamp;

/// The time now, as clock_timestamp() has it.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    Timestamp(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// Starts a statement now: statement_timestamp() answers this time from here on.
pub fn start_statement() {
    // SAFETY: sets a variable of this process; fit outside parallel workers.
    unsafe { pg_sys::SetCurrentStatementStartTimestamp() }
}

impl Timestamp {
    pub const INFINITY: Self = Self(i64::MAX);
    pub const NEG_INFINITY: Self = Self(i64::MIN);

    pub fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// Later by so many microseconds, within the range of the type.
    pub fn plus_us(self, us: i64) -> Self {
        Self(self.0.saturating_add(us).min(Self::LAST.0))
    }

    /// Microseconds from `earlier` to self, 0 when the clock went back.
    pub fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).max(0) as u64
    }

    /// The last finite timestamptz (END_TIMESTAMP in datatype/timestamp.h) less one microsecond.
    const LAST: Self = Self(9_223_371_331_199_999_999);
}
