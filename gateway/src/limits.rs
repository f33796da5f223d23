//! How much of everything one address, one subject, one socket and all together may have.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::lock;

/// A rate with a burst (GCRA, as a bucket).
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
        }
    }

    pub fn full(self, now: Instant) -> Bucket {
        Bucket {
            tokens: self.burst,
            at: now,
        }
    }

    fn filled(self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.per_second).min(self.burst)
    }

    pub fn take(self, bucket: &mut Bucket, now: Instant) -> bool {
        bucket.tokens = self.filled(*bucket, now);
        bucket.at = now;
        let has = bucket.tokens >= 1.0;
        if has {
            bucket.tokens -= 1.0;
        }
        has
    }
}

/// Addresses whose rate is kept, at most.
const MOST_RATED: usize = 65_536;

pub struct Rates {
    rate: Rate,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Rates {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: Mutex::default(),
        }
    }

    pub fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= MOST_RATED && !buckets.contains_key(&address) {
            let rate = self.rate;
            buckets.retain(|_, bucket| rate.filled(*bucket, now) < rate.burst);
            // So many at a time are no addresses of one client: their number in all is bounded elsewhere.
            if buckets.len() >= MOST_RATED {
                buckets.clear();
            }
        }
        let bucket = buckets
            .entry(address)
            .or_insert_with(|| self.rate.full(now));
        self.rate.take(bucket, now)
    }
}

/// Bytes that all together may have.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    most: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub struct Taken {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(most: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            most,
        }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many more would be too many.
    pub fn is_full(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) > self.most
    }

    pub fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        self.add(bytes);
        let taken = Taken {
            budget: self.clone(),
            bytes,
        };
        (self.used() <= self.most).then_some(taken)
    }
}

impl Taken {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.sub(self.bytes);
    }
}

/// How many there are of each, up to a bound.
pub struct Counts<K: Hash + Eq + Clone> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Hash + Eq + Clone> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    pub fn new(most: usize) -> Self {
        Self {
            counts: Arc::default(),
            most,
        }
    }

    pub fn take(&self, key: K) -> Option<Counted<K>> {
        let mut counts = lock(&self.counts);
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        Some(Counted {
            counts: self.counts.clone(),
            key,
        })
    }

    pub fn total(&self) -> usize {
        lock(&self.counts).values().sum()
    }
}

impl<K: Hash + Eq + Clone> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let rate = Rate::new(10, 3);
        let start = Instant::now();
        let mut bucket = rate.full(start);
        let taken = (0..10).filter(|_| rate.take(&mut bucket, start)).count();
        assert_eq!(taken, 3);
        assert!(rate.take(&mut bucket, start + Duration::from_millis(101)));
        assert!(!rate.take(&mut bucket, start + Duration::from_millis(102)));
    }

    #[test]
    fn rates_of_many_addresses_take_bounded_memory() {
        let rates = Rates::new(Rate::new(1, 1));
        let now = Instant::now();
        for n in 0..200_000u32 {
            rates.take(IpAddr::V4(n.into()), now);
        }
        assert!(lock(&rates.buckets).len() <= MOST_RATED);
    }

    #[test]
    fn a_budget_is_for_all_together() {
        let budget = Arc::new(Budget::new(10));
        let first = budget.take(6);
        assert!(first.is_some() && budget.take(5).is_none() && budget.take(4).is_some());
        assert!(budget.is_full(5) && !budget.is_full(4));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_given_back_may_be_taken_again() {
        let counts = Counts::new(1);
        let first = counts.take("a");
        assert!(first.is_some() && counts.take("a").is_none() && counts.take("b").is_some());
        drop(first);
        assert!(counts.take("a").is_some());
        assert!(lock(&counts.counts).is_empty());
    }
}
