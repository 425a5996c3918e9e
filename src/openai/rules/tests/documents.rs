//! Any document under any rules.

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::openai::request::tests::any_body;

/// Rules that go together, some of them wanted by chance.
fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let pool = vec![
        set("temperature", json!(0.5)),
        default("top_p", json!(0.9)),
        out("stop"),
        max("max_tokens", json!(1_000)),
        default("max_tokens", json!(500)),
        set("n", json!(2)),
        set("k.a", json!([1, {"b": "\u{1f600}"}])),
        out("k.b"),
        max("k.c", json!(7)),
        default("k.d.e", json!(true)),
        set("é\"", json!("x")),
    ];
    let length = pool.len();
    proptest::sample::subsequence(pool, 0..=length)
}

/// A member that rules may want, as clients may write it.
fn any_wanted() -> impl Strategy<Value = (String, Value)> {
    let key = proptest::sample::select(vec![
        "temperature",
        "top_p",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "k",
        "é\"",
    ]);
    let value = prop_oneof![
        Just(json!(null)),
        (0..2_000_u64).prop_map(|number| json!(number)),
        Just(json!({})),
        Just(json!({"b": 1})),
        Just(json!({"a": null, "b": [{}], "c": 9, "d": {"e": null, "f": 0.5}, "z": "\\"})),
    ];
    (key, value).prop_map(|(key, value)| (key.to_owned(), value))
}

/// Document that rules make of another, worked out on serde's tree; `None` where they refuse.
fn expected(mut map: Map<String, Value>, rules: &[Rule]) -> Option<Map<String, Value>> {
    for rule in rules {
        let outputs: &[&str] = &["max_tokens", "max_completion_tokens"];
        if rule.key != "max_tokens" {
            let path: Vec<&str> = rule.key.split('.').collect();
            one(&mut map, &path, &rule.act)?;
            continue;
        }
        let there = |name: &&&str| map.contains_key(**name);
        let names: Vec<&str> = outputs.iter().filter(there).copied().collect();
        match &rule.act {
            Act::Default(value) => {
                let has = |name: &&str| !map[*name].is_null();
                if !names.iter().any(has) {
                    // Of two that are null the one that stands first, which serde forgets.
                    let name = names.first().copied().unwrap_or("max_tokens");
                    map.insert(name.to_owned(), value.clone());
                }
            }
            act => {
                for name in names {
                    one(&mut map, &[name], act)?;
                }
            }
        }
    }
    Some(map)
}

fn one(map: &mut Map<String, Value>, path: &[&str], act: &Act) -> Option<()> {
    let (key, behind) = path.split_first()?;
    let writes = matches!(act, Act::Set(_) | Act::Default(_));
    let null = map.get(*key).is_none_or(Value::is_null);
    if !behind.is_empty() {
        match map.get_mut(*key) {
            Some(Value::Object(inner)) => return one(inner, behind, act),
            Some(_) if !null && writes => return None,
            _ if !null || !writes => return Some(()),
            _ => {}
        }
        let mut inner = Map::new();
        one(&mut inner, behind, act)?;
        map.insert((*key).to_owned(), Value::Object(inner));
        return Some(());
    }
    match act {
        Act::Set(value) => drop(map.insert((*key).to_owned(), value.clone())),
        Act::Default(value) if null => drop(map.insert((*key).to_owned(), value.clone())),
        Act::Drop => drop(map.remove(*key)),
        Act::Max(_) if null => {}
        Act::Max(most) => {
            let there = map.get_mut(*key)?;
            let number = there.as_f64()?;
            let is_count = ["n", "max_tokens", "max_completion_tokens"].contains(key);
            if number > most.as_f64()? || is_count && number < 0.0 {
                *there = most.clone();
            }
        }
        Act::Default(_) => {}
    }
    Some(())
}

proptest! {
    #[test]
    fn a_document_under_rules_differs_in_the_ruled_fields_only(
        map in any_body(),
        wanted in proptest::collection::vec(any_wanted(), 0..6),
        rules in any_rules(),
        is_pretty: bool,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut map = map;
        map.extend(wanted);
        map.insert("model".to_owned(), json!("n"));
        // Which of two nulls stands first is not for a tree to say.
        if map.get("max_tokens") == Some(&Value::Null) {
            map.remove("max_completion_tokens");
        }
        let bytes = if is_pretty {
            serde_json::to_vec_pretty(&map).unwrap()
        } else {
            serde_json::to_vec(&map).unwrap()
        };
        let body = Bytes::from(bytes);
        let Ok(found) = scan(&body) else { return Ok(()) };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.sort_unstable();
        let compiled = Rules::new(rules.clone()).unwrap();
        let done = compiled.apply(Api::Chat, "of/\"", &cut(&body, &cuts), found);
        map.insert("model".to_owned(), json!("of/\""));
        let tree = expected(map, &rules);
        prop_assert_eq!(done.is_ok(), tree.is_some(), "{:?}", done);
        let (Ok((edited, mut known)), Some(tree)) = (done, tree) else { return Ok(()) };
        let edited = edited.into_one();
        let after: Map<String, Value> = serde_json::from_slice(&edited).unwrap();
        prop_assert_eq!(&after, &tree);
        // What is known of it is what a scan of it says.
        let mut again = scan(&edited).unwrap();
        (known.odd, again.odd) = (None, None);
        (known.brings, again.brings) = (false, false);
        prop_assert_eq!(known, again);
    }

    #[test]
    fn members_without_a_rule_are_spelled_as_they_were_in_their_order(
        members in proptest::collection::vec(
            (
                proptest::sample::select(vec![
                    "\"temperature\"", "\"st\\u006fp\"", "\"k\" ", "\"max_tokens\"", "\"top_p\"",
                ]),
                proptest::sample::select(vec!["1.50e+1", " null", "{\"b\": 2 , \"q\":0.10}", "{ }"]),
                "[ \n\t]{0,2}",
                proptest::option::of("[a-z]{5}"),
            ),
            0..7,
        ),
        rules in any_rules(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut taken = Vec::new();
        let mut texts = vec!["\"model\":\"n\"".to_owned()];
        let mut kept: Vec<String> = Vec::new();
        for (key, value, blank, other) in members {
            let own = other.map_or(key.to_owned(), |other| format!("\"{other}\""));
            if taken.contains(&own) {
                continue;
            }
            let text = format!("{own}{blank}:{blank}{value}");
            if own != key {
                kept.push(text.clone());
            }
            taken.push(own);
            texts.push(text);
        }
        let body = Bytes::from(format!(" {{ {} }}\r\n", texts.join(" ,")));
        let Ok(found) = scan(&body) else { return Ok(()) };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.sort_unstable();
        let compiled = Rules::new(rules).unwrap();
        let Ok((edited, _)) = compiled.apply(Api::Chat, "of", &cut(&body, &cuts), found) else {
            return Ok(());
        };
        let edited = String::from_utf8(edited.into_one().to_vec()).unwrap();
        prop_assert!(edited.starts_with(" {") && edited.ends_with(" }\r\n"), "{}", edited);
        let mut from = 0;
        for text in kept {
            let at = edited[from..].find(&text);
            prop_assert!(at.is_some(), "{:?} in {}", text, edited);
            from += at.unwrap() + text.len();
        }
    }
}
