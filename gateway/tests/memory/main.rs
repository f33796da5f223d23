//! What topics take in memory is what is counted of them, and is given back. A test of its own, because it measures the process.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pushy_gateway::topics::pattern::Pattern;
use pushy_gateway::topics::routes::{Routes, Wants};

/// Bytes of this process that are its own and in memory.
fn resident() -> usize {
    let of = std::fs::read_to_string("/proc/self/statm").unwrap();
    let field = |at| of.split(' ').nth(at).unwrap().parse::<usize>().unwrap();
    (field(1) - field(2)) * 4_096
}

fn fill(routes: &mut Routes, pattern: impl Fn(usize) -> String) -> (usize, Vec<Wants>) {
    let mut weight = 0;
    let wants = (0..50_000).map(|n| {
        let pattern = Pattern::read(&pattern(n)).unwrap();
        weight += pattern.weight();
        let topics: Arc<[Pattern]> = [pattern].into();
        let wants = Wants {
            channel: "c".into(),
            topics: Some(topics),
        };
        routes.insert(&wants, n as u64);
        wants
    });
    let wants = wants.collect();
    (weight, wants)
}

#[test]
fn topics_take_no_more_than_they_weigh() {
    type Kind = (&'static str, fn(usize) -> String);
    let kinds: [Kind; 4] = [
        ("exact", |n| format!("order/{n}")),
        ("one star", |n| format!("order/{n}/*")),
        ("deep", |n| format!("*/a/b/c/d/e/f/g/h/i/j/k/l/m/{n}/*")),
        ("deep from its root", |n| {
            format!("{n}/a/b/c/d/e/f/g/h/i/j/k/l/m/n/*")
        }),
    ];
    for (name, pattern) in kinds {
        let mut routes = Routes::default();
        let before = resident();
        let (weight, wants) = fill(&mut routes, pattern);
        let taken = resident().saturating_sub(before);
        assert!(taken <= weight + (2 << 20), "{name}: {taken} of {weight}");
        for (key, wants) in wants.iter().enumerate() {
            routes.remove(wants, key as u64);
        }
        assert!(routes.is_empty());
        drop(wants);
        println!(
            "{name}: {} bytes each, counted {}",
            taken / 50_000,
            weight / 50_000
        );
    }
}
