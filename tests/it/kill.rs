//! Kill rules stop what they name, at once, and everybody is told the truth: sender, ledger, fate.

use serde_json::{Value, json};
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::Rivulet;

async fn run(rivulet: &Rivulet, arguments: &[&str]) -> (bool, String) {
    let url = format!("http://{}", rivulet.address());
    let output = rivulet.run(&[arguments, &["--url", &url]].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

fn rules(text: &str) -> Value {
    serde_json::from_str::<Value>(text).unwrap()["rules"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_stops_what_it_names_at_once_and_is_kept_across_a_restart() {
    let _timed = Timed::new("kill rules");
    let mut rivulet = Rivulet::up().await;
    let mut random = Random::seeded("kill rules");
    let view = |random: &mut Random| events::page_view(random, &of_user("killed"));
    let cart = |random: &mut Random| events::add_to_cart(random, &of_user("killed"));

    let (done, told) = run(
        &rivulet,
        &["kill", "add", "loop", "--action", "drop", "--source", "server", "--event-type", "page_view"],
    )
    .await;
    assert!(done && told.contains("loop  drop  source=server event_type=page_view"), "{told}");
    let dropped = view(&mut random);
    let batch = [dropped.clone(), cart(&mut random)];
    let answer = rivulet.secret().send(events::array(&batch)).await;
    assert_eq!((answer.status, answer.statuses()), (207, vec!["rejected", "accepted"]), "{}", answer.text);
    assert_eq!(answer.verdicts()[0]["reason"]["code"], "event.killed");
    assert!(answer.verdicts()[0]["acked"].is_null(), "no word of safety");
    let passed = rivulet.client().send(view(&mut random).to_string()).await;
    assert_eq!(passed.status, 200, "another source: {}", passed.text);

    let (_, fate) = run(&rivulet, &["fate", events::id(&dropped)]).await;
    assert!(fate.contains("discarded") && fate.contains("event.killed"), "{fate}");
    let line = &log::cat(&rivulet, "rivulet.quarantine").await[0];
    assert!(!line.line.contains("user_id") && line.value["raw"].is_null(), "{}", line.line);
    let outcomes =
        rivulet.metric("rivulet_gateway_events_total", &["source=\"server\"", "outcome=\"discarded\""]);
    assert_eq!(outcomes.await, Some(1));
    let counted =
        rivulet.metric("rivulet_gateway_killed_events_total", &["rule=\"loop\"", "action=\"drop\""]);
    assert_eq!(counted.await, Some(1));

    // Diverted, what is broken too; removed, it can be tried again.
    let (done, _) =
        run(&rivulet, &["kill", "add", "aside", "--source", "server", "--event-type", "add_to_cart"]).await;
    assert!(done);
    let diverted = cart(&mut random);
    let answer = rivulet.secret().send(diverted.to_string()).await;
    assert_eq!(answer.statuses(), ["quarantined"], "{}", answer.text);
    rivulet.kill();
    rivulet.start().await;
    let again = rivulet.secret().send(cart(&mut random).to_string()).await;
    assert_eq!(again.statuses(), ["quarantined"], "the rule is still there");
    assert!(run(&rivulet, &["kill", "remove", "aside"]).await.0);
    let (done, told) =
        run(&rivulet, &["quarantine", "replay", "--reason", "event.killed", "--source", "server"]).await;
    assert!(!done && told.contains("2 taken, 1 left"), "what was dropped is gone: {told}");

    assert_eq!(rivulet.client().get("/v1/kill").await.unwrap().status, 403, "secret key only");
    let wrong = rivulet.secret().post("/v1/kill", &[], r#"{"name":"all","action":"drop"}"#).await.unwrap();
    assert_eq!(wrong.status, 400, "{}", wrong.text);

    // Followed by what is asked for: another user's event does not show.
    let url = format!("http://{}", rivulet.address());
    let wanted = [
        "tail",
        "--user",
        "killed",
        "--outcome",
        "rejected",
        "--reason",
        "event.killed",
        "--count",
        "1",
        "--url",
        &url,
    ];
    let tail = rivulet.run(&wanted);
    let send = async {
        loop {
            let other = events::page_view(&mut random, &of_user("other"));
            let batch = [other, events::page_view(&mut random, &of_user("killed"))];
            rivulet.secret().send(events::array(&batch)).await;
        }
    };
    let told = tokio::select! { told = tail => told, () = send => unreachable!() };
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.lines().count() == 1 && told.contains("rejected") && !told.contains("other"), "{told}");

    // By hand, and broken.
    let path = rivulet.data().join("kill.toml");
    std::fs::write(&path, "[[kill]]\nname = \"one\"\naction = \"drop\"\nevent_id = \"oops").unwrap();
    faults::eventually("the broken file is told", SOON, async || {
        rivulet.metric("rivulet_gateway_kill_rules_stale", &[]).await.filter(|stale| *stale == 1)
    })
    .await;
    let (_, listed) = run(&rivulet, &["kill", "list", "--json"]).await;
    assert_eq!(rules(&listed)[0]["name"], "loop", "{listed}");
    let library = "[[kill]]\nname = \"old\"\naction = \"sample\"\nkeep = 0.000001\nlibrary = \"js 1.2.0\"\n";
    std::fs::write(&path, library).unwrap();
    faults::eventually("the mended file is taken", SOON, async || {
        let (_, listed) = run(&rivulet, &["kill", "list", "--json"]).await;
        (rules(&listed)[0]["name"] == "old").then_some(())
    })
    .await;
    let mut old = view(&mut random);
    old["context"] = json!({"library": {"name": "js", "version": "1.2.0"}});
    for _ in 0..2 {
        let answer = rivulet.secret().send(events::array(&[old.clone(), view(&mut random)])).await;
        assert_eq!(answer.statuses(), ["rejected", "accepted"], "{}", answer.text);
    }
}
