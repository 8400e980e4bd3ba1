//! Roll backs, bounds, damage.

use super::*;

fn version(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn at(name: &str, letter: char) -> Selected {
    Selected {
        name: name.into(),
        version: version(letter),
    }
}

fn state() -> State {
    let mut state = State::new(Some("cam".into()));
    state.activate(at("cam", 'a'), Scope::Current);
    state.activate(at("door", 'd'), Scope::Current);
    state
}

#[test]
fn the_choice_counts_until_an_activation() {
    let mut state = state();
    assert_eq!(state.selected(), Some(at("cam", 'a')));
    state.activate(at("door", 'd'), Scope::Active);
    state.choice = Some("other".into());
    assert_eq!(state.selected(), Some(at("door", 'd')));
}

#[test]
fn roll_backs_walk_the_history_of_a_name() {
    let mut state = state();
    for letter in ['b', 'c'] {
        state.activate(at("cam", letter), Scope::Active);
    }
    state.activate(at("door", 'e'), Scope::Active);
    assert_eq!(state.roll_back("cam"), Some(at("cam", 'b')));
    assert_eq!(state.roll_back("cam"), Some(at("cam", 'a')));
    assert_eq!(state.roll_back("cam"), None);
    assert_eq!(state.active(), Some("door"), "another one stays active");
    assert_eq!(state.roll_back("door"), Some(at("door", 'd')));
    assert_eq!(state.roll_back("nobody"), None);
}

#[test]
fn a_roll_back_of_the_active_one_undoes_whole_activations() {
    let mut state = state();
    state.activate(at("cam", 'b'), Scope::Active);
    state.activate(at("door", 'e'), Scope::Active);
    state.activate(at("door", 'f'), Scope::Active);
    assert_eq!(state.roll_back(""), Some(at("door", 'e')));
    assert_eq!(state.roll_back(""), Some(at("cam", 'b')));
    assert_eq!(state.current("door"), Some(version('d').as_str()));
    assert_eq!(state.roll_back(""), Some(at("cam", 'a')));
    assert_eq!(state.roll_back(""), None);
    assert_eq!(state.selected(), Some(at("cam", 'a')));
}

#[test]
fn a_version_that_changed_again_is_left_alone() {
    let mut state = state();
    state.activate(at("door", 'e'), Scope::Active);
    state.activate(at("cam", 'b'), Scope::Active);
    state.activate(at("door", 'f'), Scope::Current);
    // Back to what was active: door with the version that it had then.
    assert_eq!(state.roll_back(""), Some(at("door", 'e')));
    assert_eq!(state.current("cam"), Some(version('a').as_str()));
    let mut state = self::state();
    state.activate(at("door", 'e'), Scope::Active);
    state.activate(at("cam", 'a'), Scope::Active);
    state.activate(at("cam", 'c'), Scope::Current);
    assert_eq!(state.roll_back(""), Some(at("cam", 'a')));
}

#[test]
fn activating_what_is_active_leaves_nothing_to_undo() {
    let mut state = state();
    state.activate(at("cam", 'a'), Scope::Active);
    assert!(state.is_activated());
    assert_eq!(state.roll_back(""), None);
    assert_eq!(state.roll_back("cam"), None);
}

#[test]
fn what_is_deleted_is_not_gone_back_to() {
    let mut state = state();
    for letter in ['b', 'c'] {
        state.activate(at("cam", letter), Scope::Active);
    }
    state.keep(|_, v| v != version('b'), |_| true);
    assert_eq!(state.roll_back("cam"), Some(at("cam", 'a')));
}

#[test]
fn history_is_bounded_and_the_file_with_it() {
    let mut state = State::new(None);
    let long = "n".repeat(60);
    for n in 0..limits::PROFILES_MAX {
        let name = format!("{long}{n:04}");
        state.activate(at(&name, 'a'), Scope::Active);
        state.copied(&name, Some(&version('a')));
    }
    assert_eq!(state.history.len(), limits::PROFILE_HISTORY_MAX);
    let text = state.to_text().unwrap();
    assert!((text.len() as u64) < limits::PROFILE_STATE_MAX_BYTES);
    assert_eq!(State::from_text(&text).unwrap(), state);
}

#[test]
fn damage_and_later_schemas_are_told_apart() {
    let text = state().to_text().unwrap();
    let kind = |text: &str| State::from_text(text).unwrap_err().kind();
    assert_eq!(kind(&text.replacen("cam", "cbm", 1)), Kind::DataLoss);
    assert_eq!(kind(&text[..text.len() / 2]), Kind::DataLoss);
    assert_eq!(kind("{}"), Kind::DataLoss);
    let later = text.replace("\"schema\": 1", "\"schema\": 2");
    assert_eq!(kind(&later), Kind::FailedPrecondition);
    // With a checksum that fits, but no path of ours.
    let mut state = state();
    state.activate(at("../cam", 'a'), Scope::Current);
    assert_eq!(kind(&state.to_text().unwrap()), Kind::DataLoss);
}
