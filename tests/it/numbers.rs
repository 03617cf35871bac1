//! Digits stay digits, from the sender to the decision.

use tests::events::Random;
use tests::faults::{self, SOON, Timed};
use tests::log::{self, Record};
use tests::rivulet::{Options, Rivulet};

/// C14: digits stay digits, and a magic key of a library is a key like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_keep_their_digits_on_the_log_in_the_profile_and_as_keys_of_windows() {
    let _timed = Timed::new("C14");
    let rules = "
rules:
  - name: same_order
    on: x_order
    when: { count: x_order, by: metadata.order, within: 30m, at_least: 2 }
    decide: { slot: order, payload: { title: \"again {order}\" } }
last_values:
  - { name: order, from: metadata.order, on: x_order }
";
    let mut rivulet = Rivulet::with(Options::default().rules(rules)).await;
    let metadata = r#"{"order":9007199254740993,"big":18446744073709551617,"f":9007199254740991.0,"z":-0.0,"e":1e2,"s":0.1}"#;
    let event =
        |metadata: &str| format!(r#"{{"event_type":"x_order","user_id":"c14","metadata":{metadata}}}"#);
    let forged = r#"{"order":{"$serde_json::private::Number":"7"}}"#;
    let cart = |quantity: &str| {
        format!(
            r#"{{"event_type":"add_to_cart","user_id":"c14","metadata":{{"product_id":"p","quantity":{quantity}}}}}"#
        )
    };
    let endless = cart("1e400");
    let magic = cart(r#"{"$serde_json::private::Number":"7"}"#);
    let raw = cart(r#"{"$serde_json::private::RawValue":"7"}"#);
    let body = format!("[{},{},{endless},{magic},{raw}]", event(metadata), event(forged));
    let answer = rivulet.client().send(body).await;
    assert_eq!(
        answer.statuses(),
        ["accepted", "accepted", "rejected", "rejected", "rejected"],
        "{}",
        answer.text
    );
    assert!(answer.verdicts()[2]["reason"]["code"].is_string(), "{}", answer.text);
    for forged in [3, 4] {
        assert_eq!(answer.verdicts()[forged]["reason"]["keyword"], "type", "{}", answer.text);
        assert_eq!(answer.verdicts()[forged]["reason"]["pointer"], "/metadata/quantity", "{}", answer.text);
    }
    let records = log::events(&rivulet).await;
    assert!(records[0].line.contains(metadata), "{}", records[0].line);
    assert!(records[1].line.contains(forged), "{}", records[1].line);

    for order in ["9007199254740992", "9007199254740993"] {
        rivulet.client().send(event(&format!(r#"{{"order":{order}}}"#))).await;
    }
    let traits = r#"{"event_type":"identify","user_id":"c14","metadata":{"traits":{"order":9007199254740993,"deep":{"n":18446744073709551617}}}}"#;
    assert_eq!(rivulet.secret().send(traits).await.status, 200);
    let text = faults::eventually("the profile has all of it", SOON, async || {
        let answer = rivulet.secret().get("/v1/profiles/user:c14").await.ok()?;
        (answer.json["counters"]["identify"] == 1).then_some(answer.text)
    });
    let text = text.await;
    assert!(text.contains("9007199254740993") && text.contains("18446744073709551617"), "{text}");
    assert!(text.contains(r#""last":{"order":9007199254740993}"#), "the last value: {text}");
    let decisions: Vec<Record> =
        faults::eventually("the second order of one number is decided", SOON, async || {
            let found = log::cat(&rivulet, "rivulet.decisions").await;
            (!found.is_empty()).then_some(found)
        })
        .await;
    assert_eq!(decisions.len(), 1, "…992 and …993 are two keys: {decisions:?}");
    assert!(decisions[0].line.contains("9007199254740993"), "{}", decisions[0].line);
    assert!(!decisions[0].line.contains("9007199254740992"), "{}", decisions[0].line);
    crate::hostile::well(&mut rivulet).await;
}

/// The kind behind C14: neighbours that a double cannot tell apart are two keys, spellings of one number are one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbouring_numbers_are_two_keys_and_spellings_of_one_number_are_one() {
    let _timed = Timed::new("numbers: neighbours");
    let rules = "
rules:
  - name: again
    on: x_number
    when: { count: x_number, by: metadata.n, within: 30m, at_least: 2 }
    decide: { slot: again, payload: { title: \"{n}\" } }
";
    let rivulet = Rivulet::with(Options::default().rules(rules)).await;
    let mut random = Random::seeded("numbers: neighbours");
    let bases = [1_u128 << 53, 1 << 63, 1 << 64, 10_u128.pow(19), 10_u128.pow(30), 10_u128.pow(37)];
    let (mut numbers, mut twice) = (Vec::new(), Vec::new());
    for base in bases {
        let base = base + u128::from(random.below(1_000));
        for number in base..base + 8 {
            let sign = if random.below(4) == 0 { "-" } else { "" };
            let plain = format!("{sign}{number}");
            if numbers.contains(&plain) {
                continue;
            }
            if random.below(2) == 0 {
                let other = match random.below(4) {
                    0 => format!("{plain}.0"),
                    1 => format!("{plain}e0"),
                    2 => format!("{plain}0e-1"),
                    _ => plain.clone(),
                };
                twice.push((plain.clone(), other));
            }
            numbers.push(plain);
        }
    }
    let event = |number: &str| {
        format!(r#"{{"event_type":"x_number","user_id":"numbers","metadata":{{"n":{number}}}}}"#)
    };
    let first = numbers.iter().map(String::as_str);
    let all: Vec<&str> = first.chain(twice.iter().map(|(_, other)| other.as_str())).collect();
    let bodies: Vec<String> = all.iter().map(|number| event(number)).collect();
    let answer = rivulet.client().send(format!("[{}]", bodies.join(","))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    faults::eventually("all are counted", SOON, async || {
        rivulet.profile("user:numbers").await.filter(|profile| profile["counters"]["x_number"] == all.len())
    })
    .await;
    let mut right: Vec<String> = twice.iter().map(|(plain, _): &(String, String)| plain.clone()).collect();
    let mut last = Vec::new();
    let told = faults::until(SOON, async || {
        let decisions = log::cat(&rivulet, "rivulet.decisions").await;
        let title = |record: &Record| record.value["payload"]["title"].as_str().unwrap().to_owned();
        last = decisions.iter().map(title).collect();
        (last.len() >= right.len()).then_some(())
    });
    told.await;
    right.sort();
    last.sort();
    assert_eq!(last, right, "each number that came twice, with all its digits, and no other");
    let lines: String = log::events(&rivulet).await.iter().map(|record| record.line.clone()).collect();
    for number in all {
        assert!(lines.contains(&format!("\"n\":{number}}}")), "{number} is not on the log as sent");
    }
}
