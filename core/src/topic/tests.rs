use super::*;

/// As the words say it: `**` is tried as any number of `*`.
fn naive(pattern: &str, topic: &str, subject: Option<&str>) -> bool {
    let said: Vec<&str> = topic.split('/').collect();
    let written: Vec<&str> = pattern.split('/').collect();
    let fits = |levels: &[String]| {
        levels.len() == said.len()
            && levels
                .iter()
                .zip(&said)
                .all(|(level, said)| match level.as_str() {
                    "*" => true,
                    "{sub}" => !said.is_empty() && subject == Some(*said),
                    literal => literal.replace('\\', "") == *said,
                })
    };
    let own = |levels: &[&str]| levels.iter().map(|level| (*level).to_owned()).collect();
    match written.split_last() {
        Some((&"**", before)) => (0..=said.len()).any(|more| {
            let mut levels: Vec<String> = own(before);
            levels.extend(vec!["*".to_owned(); more]);
            fits(&levels)
        }),
        _ => fits(&own(&written)),
    }
}

/// All sequences of up to `most` of these, at least one.
fn sequences(of: &[&str], most: usize) -> Vec<String> {
    let mut all: Vec<Vec<&str>> = of.iter().map(|one| vec![*one]).collect();
    let mut last = all.clone();
    for _ in 1..most {
        last = last
            .iter()
            .flat_map(|levels| of.iter().map(|one| [levels.as_slice(), &[*one]].concat()))
            .collect();
        all.extend(last.clone());
    }
    all.iter().map(|levels| levels.join("/")).collect()
}

#[test]
fn every_short_pattern_matches_what_its_words_say() {
    let topics = sequences(&["a", "b", "", "*", ".."], 4);
    let patterns = sequences(&["a", "", "*", "\\*", "{sub}", "..", "**"], 4);
    let mut tried = 0;
    for pattern in &patterns {
        let is_topic = !pattern.is_empty();
        let has_early_rest = pattern.rsplit('/').skip(1).any(|level| level == "**");
        let read = Pattern::read(pattern.as_bytes());
        assert_eq!(read.is_ok(), is_topic && !has_early_rest, "{pattern}");
        let Ok(read) = read else { continue };
        for topic in topics.iter().filter(|topic| !topic.is_empty()) {
            for subject in [None, Some("a"), Some(""), Some("a/b"), Some("*")] {
                assert_eq!(
                    read.matches(topic.as_bytes(), subject.map(str::as_bytes)),
                    naive(pattern, topic, subject),
                    "{pattern} and {topic} for {subject:?}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 1_000_000, "{tried}");
}

#[test]
fn what_is_no_pattern_says_why() {
    let long = "a".repeat(LONGEST + 1);
    let deep = "/".repeat(MOST_LEVELS);
    assert!(Pattern::read("/".repeat(MOST_LEVELS - 1).as_bytes()).is_ok());
    let cases = [
        ("", Flaw::Empty),
        (long.as_str(), Flaw::TooLong(LONGEST + 1)),
        (deep.as_str(), Flaw::TooDeep(MOST_LEVELS + 1)),
        ("a\tb", Flaw::Control),
        ("a\u{7f}", Flaw::Control),
        ("a*", Flaw::Star),
        ("***", Flaw::Star),
        ("**/a", Flaw::Star),
        ("a/**/**", Flaw::Star),
        ("{sub", Flaw::Brace),
        ("{role}", Flaw::Brace),
        ("x{sub}", Flaw::Brace),
        ("}", Flaw::Brace),
        ("a,b", Flaw::Comma),
        ("a\\b", Flaw::Escape),
        ("a\\", Flaw::Escape),
        ("a\\/b", Flaw::Escape),
    ];
    for (written, flaw) in cases {
        assert_eq!(Pattern::read(written.as_bytes()), Err(flaw), "{written}");
    }
}

#[test]
fn what_means_something_stands_for_itself_behind_a_backslash() {
    for topic in ["*", "a/**", "{sub}", "a,b", "a\\b", "\\*", "é/{}"] {
        let mut written = String::new();
        for character in topic.chars() {
            if "*{},\\".contains(character) {
                written.push('\\');
            }
            written.push(character);
        }
        let pattern = Pattern::read(written.as_bytes()).unwrap();
        assert!(pattern.matches(topic.as_bytes(), Some(b"x")), "{written}");
        assert!(!pattern.matches(b"x", Some(b"x")), "{written}");
    }
}

#[test]
fn a_list_is_split_at_commas_that_are_not_escaped() {
    let list = Patterns::read_list(b"a/*, b\\,c,{sub}/**").unwrap();
    assert_eq!(list.0.len(), 3);
    assert!(list.match_topic(b"a/x", None) && list.match_topic(b"b,c", None));
    assert!(!list.match_topic(b"me/x", None) && list.match_topic(b"me/x", Some(b"me")));
    let usual = list.of_no_subject().unwrap();
    assert!(usual.match_topic(b"b,c", None) && !usual.match_topic(b"me", Some(b"me")));
    assert_eq!(Patterns::read_list(b"{sub}").unwrap().of_no_subject(), None);
    assert_eq!(Patterns::read_list(b"a,,b"), Err(Flaw::Empty));
    assert_eq!(Patterns::read_list(b"a\\\\,b").unwrap().0.len(), 2);
    let many = vec!["a"; MOST_PATTERNS + 1].join(",");
    assert_eq!(Patterns::read_list(many.as_bytes()), Err(Flaw::TooMany));
}

#[test]
fn a_list_is_no_longer_than_it_may_be_however_it_is_given() {
    for (patterns, length) in [(8, LONGEST / 8), (9, LONGEST), (MOST_PATTERNS, 80)] {
        let one = "a".repeat(length);
        let list = vec![one.as_str(); patterns];
        let written = list.join(",");
        let fits = written.len() <= LONGEST_LIST;
        let flaw = Flaw::ListTooLong(written.len());
        let read = Patterns::read_list(written.as_bytes());
        assert_eq!(read.is_ok(), fits, "{patterns} of {length}");
        assert_eq!(read.err(), (!fits).then_some(flaw));
        let read = Patterns::read_all(list.iter().map(|one| one.as_bytes()));
        assert_eq!(read.is_ok(), fits, "{patterns} of {length}");
    }
}

#[test]
fn one_pattern_covers_another_whose_topics_it_matches() {
    let topics = sequences(&["a", "b", "c"], 4);
    let patterns = sequences(&["a", "b", "*", "**"], 3);
    let read = |pattern: &String| Pattern::read(pattern.as_bytes()).ok();
    let read: Vec<Pattern> = patterns.iter().filter_map(read).collect();
    for one in &read {
        for other in &read {
            let mut matched = topics.iter().map(String::as_bytes);
            let is_so =
                matched.all(|topic| !other.matches(topic, None) || one.matches(topic, None));
            // `c` stands for all texts that no pattern names: what is so of these topics is so of all but for `**` behind nothing.
            if one.covers(other) {
                assert!(is_so, "{one:?} and {other:?}");
            } else if is_so {
                assert!(
                    other.levels().contains(&Level::Rest),
                    "{one:?} and {other:?}"
                );
            }
        }
    }
}

#[test]
fn a_subject_takes_the_place_of_its_word_as_one_level() {
    let pattern = Pattern::read(b"user/{sub}/**").unwrap();
    let of = |subject: &str| pattern.of_subject(Some(subject.as_bytes()));
    assert_eq!(of("7").unwrap().written(), b"user/7/**");
    assert_eq!(of("*").unwrap().written(), b"user/\\*/**");
    assert_eq!(
        (of(""), of("7/../8"), pattern.of_subject(None)),
        (None, None, None)
    );
    assert!(!pattern.covers(&pattern) && of("7").unwrap().covers(&of("7").unwrap()));
    assert_eq!(of("7").unwrap().exact(), None);
    assert_eq!(Pattern::of_topic(b"a/*").exact().unwrap(), b"a/*");
    assert_eq!(Pattern::of_topic(b"a/*").written(), b"a/\\*");
}
