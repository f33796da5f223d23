//! Patterns, and a topic: what was read is written so that it is the same; routes lead where the pattern matches, and keep nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_gateway::topics::pattern::Pattern;
use pushy_gateway::topics::routes::{Routes, Wants};

fuzz_target!(|text: &str| {
    let (topic, written) = text.split_once('\n').unwrap_or((text, text));
    let Ok(patterns) = Pattern::read_list(written) else {
        return;
    };
    for pattern in &patterns {
        assert_eq!(Pattern::read(&pattern.to_string()).as_ref(), Ok(pattern));
        let own: Option<Pattern> = pattern.of_subject(Some(topic));
        assert!(own.is_none_or(|own| !own.to_string().contains("{sub}") || topic.contains("{sub}")));
    }
    let matches = patterns.iter().any(|pattern| pattern.matches(topic));
    let has_subject = written.contains("{sub}");
    let wants = Wants {
        channel: "c".into(),
        topics: Some(patterns.into()),
    };
    let mut routes = Routes::default();
    routes.insert(&wants, 1);
    routes.insert(&wants, 2);
    let mut is_led = false;
    routes.each("c", Some(topic), |_| is_led = true);
    assert!(has_subject || is_led == matches);
    routes.remove(&wants, 1);
    routes.remove(&wants, 2);
    assert!(routes.is_empty());
});
