//! Whether a library works with the script that a database has.

/// How the version of a script stands to a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The library works with this script.
    Works,
    /// The script is of a time before the library: ALTER EXTENSION UPDATE has not run since the library was replaced.
    ScriptIsOlder,
    /// The script is of a time after the library: the server has not been restarted since the library was replaced.
    LibraryIsOlder,
}

/// `works_with`: the versions of the script that the library works with, its own first.
pub fn fit(script: &str, works_with: &[&str]) -> Fit {
    if works_with.contains(&script) {
        Fit::Works
    } else if works_with
        .first()
        .is_some_and(|own| numbers(script) > numbers(own))
    {
        Fit::LibraryIsOlder
    } else {
        Fit::ScriptIsOlder
    }
}

/// `0.10.2` as numbers, which sort as versions do; what is no number counts as 0.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split('.');
    parts.map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_works_with_its_own_script_and_those_that_it_lists() {
        assert_eq!(fit("0.2.0", &["0.2.0"]), Fit::Works);
        assert_eq!(fit("0.1.0", &["0.2.0", "0.1.0"]), Fit::Works);
    }

    #[test]
    fn of_any_other_script_it_says_which_of_the_two_is_older() {
        assert_eq!(fit("0.1.0", &["0.2.0"]), Fit::ScriptIsOlder);
        assert_eq!(fit("0.1.1", &["0.2.0", "0.1.0"]), Fit::ScriptIsOlder);
        assert_eq!(fit("0.2.1", &["0.2.0"]), Fit::LibraryIsOlder);
        assert_eq!(fit("0.10.0", &["0.9.0", "0.2.0"]), Fit::LibraryIsOlder);
        assert_eq!(fit("1.0", &["0.9.9"]), Fit::LibraryIsOlder);
    }

    #[test]
    fn a_version_of_other_words_is_none_of_the_librarys() {
        assert_eq!(fit("unreleased", &["0.2.0"]), Fit::ScriptIsOlder);
        assert_eq!(fit("", &["0.2.0"]), Fit::ScriptIsOlder);
    }
}
