use super::*;

/// A token and another one, each with its logprob.
type Told<'a> = (&'a str, f64, &'a str, f64);

/// An answer of these tokens, each with its logprob, and beside it another one.
fn said(tokens: &[Told<'_>]) -> Said {
    let text: String = tokens.iter().map(|token| token.0).collect();
    let each = |pick: &dyn Fn(&Told<'_>) -> Value| tokens.iter().map(pick).collect::<Vec<Value>>();
    let answer = json!({"choices": [{"text": text, "logprobs": {
        "tokens": each(&|token| json!(token.0)),
        "token_logprobs": each(&|token| json!(token.1)),
        "top_logprobs": each(&|token| json!({(token.0): token.1, (token.2): token.3})),
    }}]});
    Said::read(&answer).unwrap()
}

/// `eight`, `nine` and so on, each of these logprobs.
fn sure(logprobs: &[f64]) -> Said {
    let words = [" eight", ",", " nine", ",", " ten", ","];
    let tokens: Vec<_> = words
        .iter()
        .zip(logprobs)
        .map(|(word, logprob)| (*word, *logprob, " x", logprob - 5.0))
        .collect();
    said(&tokens)
}

#[test]
fn sums_in_another_order_raise_no_alarm() {
    let before = sure(&[-0.1, -0.2, -0.1, -0.3, -0.1, -0.2]);
    assert_eq!(before.same(&before), Ok(()));
    let after = sure(&[-0.15, -0.1, -0.2, -0.4, -0.1, -0.3]);
    assert_eq!(before.same(&after), Ok(()));
}

#[test]
fn one_logit_that_changed_is_told() {
    let before = sure(&[-0.1; 6]);
    let after = sure(&[-0.1, -0.1, -0.1, -0.1, -1.1, -0.1]);
    let Err(Difference::Logprobs { at: 5, off }) = before.same(&after) else {
        panic!("{:?}", before.same(&after));
    };
    assert!((off - 1.0).abs() < 1e-9);
    // All of them a little.
    let after = sure(&[-0.3; 6]);
    let found = before.same(&after);
    assert!(
        matches!(found, Err(Difference::Logprobs { .. })),
        "{found:?}"
    );
}

#[test]
fn a_token_that_was_nearly_as_likely_may_be_said_and_no_other() {
    let before = said(&[(" a", -0.1, " z", -9.0), (" b", -0.7, " c", -0.8)]);
    let after = said(&[(" a", -0.1, " z", -9.0), (" c", -0.7, " b", -0.75)]);
    assert_eq!(before.same(&after), Ok(()));
    let other = said(&[(" a", -0.1, " z", -9.0), (" d", -0.7, " b", -0.75)]);
    assert!(matches!(before.same(&other), Err(Difference::Text { .. })));
    let far = said(&[(" a", -0.1, " z", -9.0), (" c", -0.1, " b", -3.0)]);
    assert!(matches!(before.same(&far), Err(Difference::Text { .. })));
}

#[test]
fn an_answer_that_ends_early_or_says_nothing_is_another() {
    let before = sure(&[-0.1; 6]);
    let cut = sure(&[-0.1; 4]);
    assert!(matches!(before.same(&cut), Err(Difference::Text { .. })));
    for answer in [
        json!({}),
        json!({"choices": []}),
        json!({"choices": [{"text": null}]}),
        json!({"choices": [{"text": ""}]}),
        json!({"choices": [{"text": "a", "logprobs": {"tokens": ["a"]}}]}),
        json!({"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [null]}}]}),
    ] {
        assert_eq!(Said::read(&answer), None, "{answer}");
    }
}

#[test]
fn without_logprobs_the_beginning_counts_and_those_that_were_there_stay() {
    let plain = |text: &str| {
        let answer = json!({"choices": [{"text": text, "logprobs": null}]});
        Said::read(&answer).unwrap()
    };
    let before = plain(" eight, nine, ten, eleven");
    assert_eq!(before.same(&plain(" eight, nine, ten, 11")), Ok(()));
    assert!(before.same(&plain(" eight, nine, 10")).is_err());
    assert!(before.same(&plain("!!!!")).is_err());
    let told = sure(&[-0.1; 6]);
    let text = plain(" eight, nine, ten,");
    assert_eq!(told.same(&text), Err(Difference::Untold));
}

#[test]
fn half_the_speed_is_slow_where_there_is_time_to_measure() {
    let ms = Duration::from_millis;
    for (took, slower, is_slow) in [
        (640, 1_280, true),
        (670, 1_290, true),
        (640, 1_100, false),
        (640, 640, false),
        (640, 300, false),
        // Of moments nothing is said.
        (1, 200, false),
        (20, 240, false),
    ] {
        let before = Round {
            said: vec![("base".to_owned(), sure(&[-0.1; 6]))],
            took: ms(took),
        };
        let is = before.is_faster_by_far(ms(slower));
        assert_eq!(is, is_slow, "{took} {slower}");
    }
    let said = |name: &str| (name.to_owned(), sure(&[-0.1; 6]));
    let two = Round {
        said: vec![said("sql"), said("chat")],
        took: ms(640),
    };
    assert!((two.speed() - 100.0).abs() < 1e-9);
}

#[test]
fn guesses_that_hold_no_more_are_told_where_enough_were_made() {
    let of = |guessed: f64, held: f64| Guesses { guessed, held };
    for (before, after, is_lost) in [
        (of(60.0, 40.0), of(30.0, 20.0), false),
        (of(60.0, 40.0), of(30.0, 12.0), false),
        (of(60.0, 40.0), of(90.0, 25.0), true),
        (of(60.0, 40.0), of(90.0, 0.0), true),
        (of(60.0, 40.0), of(0.0, 0.0), true),
        // None held before either, or hardly any was made.
        (of(60.0, 0.0), of(90.0, 0.0), false),
        (of(6.0, 6.0), of(6.0, 0.0), false),
    ] {
        let is = before.are_better_by_far(after);
        assert_eq!(is, is_lost, "{before:?} {after:?}");
    }
    let since = of(60.0, 40.0).since(of(20.0, 10.0));
    assert_eq!(since, of(40.0, 30.0));
}
