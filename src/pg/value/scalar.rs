//! Values of types that Rust has not: timestamptz, interval, uuid, "char".

/// Microseconds since 2000-01-01 UTC: a timestamptz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

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

/// Microseconds, as an interval of so much time: days count as 24 hours.
#[derive(Clone, Copy, Debug)]
pub struct Interval(pub i64);

/// A value of type uuid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// As the server reads one: 32 digits, in braces or not, with hyphens or none after each four of them.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}')?,
            None => text,
        };
        let mut left = inner.as_bytes();
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let (digits, rest) = left.split_at_checked(2)?;
            let digit = |at: usize| (digits[at] as char).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
            left = match rest {
                [b'-', rest @ ..] if at % 2 == 1 && at < 15 => rest,
                _ => rest,
            };
        }
        left.is_empty().then_some(Self(bytes))
    }
}

/// As the server writes one.
impl std::fmt::Display for Uuid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut quoted = Vec::with_capacity(38);
        pushy_core::json::uuid(&self.0, &mut quoted);
        out.write_str(&String::from_utf8_lossy(&quoted[1..quoted.len() - 1]))
    }
}

/// A value of type "char".
#[derive(Clone, Copy, Debug)]
pub struct Char(pub u8);
