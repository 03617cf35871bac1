//! Who is who: a device becomes a person when it says so, and nobody is not a person.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::events::{self, Random};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_did_before_signing_in_belongs_to_the_person_after() {
    let _timed = Timed::new("identity: merge");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("identity: merge");
    let client = rivulet.client();
    let device = events::of_device("id-device");
    let both = json!({ "user_id": "id-person", "anonymous_id": "id-device" });
    for _ in 0..2 {
        client.send(events::product_view(&mut random, &device, "hats").to_string()).await;
    }
    client
        .send(
            events::event(&mut random, "identify", &both, &json!({ "traits": { "plan": "gold" } }))
                .to_string(),
        )
        .await;
    faults::eventually("the device's views are the person's", SOON, async || {
        rivulet.profile("user:id-person").await.filter(|profile| profile["counters"]["product_view"] == 2)
    })
    .await;
    client.send(events::product_view(&mut random, &both, "hats").to_string()).await;
    let profile = faults::eventually("the person has the device's history", SOON, async || {
        rivulet.profile("user:id-person").await.filter(|profile| profile["counters"]["product_view"] == 3)
    });
    let profile = profile.await;
    assert_eq!(profile["categories"]["hats"], 3, "{profile}");
    assert_eq!(profile["traits"]["plan"], "gold", "{profile}");
    assert!(profile["devices"].to_string().contains("id-device"), "{profile}");
    // Three views of hats, two of them before it was known who it is: the banner is decided for the person.
    let decided = faults::eventually("the banner is decided", SOON, async || {
        let profile = rivulet.profile("user:id-person").await?;
        profile["decisions"].as_array().filter(|decisions| !decisions.is_empty()).cloned()
    });
    assert_eq!(decided.await.len(), 1);
    // What the device does later without naming the person is counted somewhere once, and not twice.
    client.send(events::product_view(&mut random, &device, "tea").to_string()).await;
    let total = faults::eventually("a later view of the device is counted", SOON, async || {
        let [person, alone] =
            [rivulet.profile("user:id-person").await, rivulet.profile("anonymous:id-device").await];
        let views = |profile: &Option<Value>| {
            profile.as_ref().and_then(|p| p["counters"]["product_view"].as_u64()).unwrap_or(0)
        };
        let same = person.as_ref().map(|p| &p["profile"]) == alone.as_ref().map(|p| &p["profile"]);
        let total = views(&person) + if same { 0 } else { views(&alone) };
        (total >= 4).then_some(total)
    });
    assert_eq!(total.await, 4);
}

/// The view stands behind the sign-in in the person's partition; the device's history has the longer way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_right_after_signing_in_decides_with_what_the_device_did_before() {
    const PEOPLE: usize = 24;
    let _timed = Timed::new("identity: merge and decide");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("identity: merge and decide");
    let mut triggers = BTreeMap::new();
    for n in 0..PEOPLE {
        let device = events::of_device(&format!("md-device-{n}"));
        let person = events::of_user(&format!("md-person-{n}"));
        let both = json!({ "user_id": format!("md-person-{n}"), "anonymous_id": format!("md-device-{n}") });
        let third = events::product_view(&mut random, &person, "hats");
        triggers.insert(format!("user:md-person-{n}"), events::id(&third).to_owned());
        let batch = [
            events::product_view(&mut random, &device, "hats"),
            events::product_view(&mut random, &device, "hats"),
            events::event(&mut random, "identify", &both, &json!({ "traits": {} })),
            third,
        ];
        // One after the other, as clients' clocks say: otherwise any of them is the newest.
        let start = events::now_millis() - 1_000;
        let batch = (start..).zip(batch).map(|(millis, event)| events::at(event, millis)).collect::<Vec<_>>();
        let answer = rivulet.client().send(events::array(&batch)).await;
        assert_eq!(answer.statuses(), ["accepted"; 4], "{}", answer.text);
    }
    let banners = async || {
        let all = log::cat(&rivulet, "rivulet.decisions").await.into_iter();
        let banners = all.filter(|record| record.value["slot"] == "home_banner");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        banners
            .map(|record| (text(&record.value["subject"]), text(&record.value["trigger"])))
            .collect::<Vec<_>>()
    };
    faults::eventually("everybody has a banner", SOON, async || {
        (banners().await.len() >= PEOPLE).then_some(())
    })
    .await;
    // One more view each, when all is known: at most one banner in 24 hours all the same.
    for n in 0..PEOPLE {
        let person = events::of_user(&format!("md-person-{n}"));
        rivulet.client().send(events::product_view(&mut random, &person, "hats").to_string()).await;
        faults::eventually("the view is counted", SOON, async || {
            let profile = rivulet.profile(&format!("user:md-person-{n}")).await?;
            (profile["categories"]["hats"] == 4).then_some(())
        })
        .await;
    }
    let decided = banners().await;
    assert_eq!(decided.len(), PEOPLE, "each once: {decided:?}");
    assert_eq!(decided.into_iter().collect::<BTreeMap<_, _>>(), triggers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_mean_nobody_do_not_make_strangers_one_person() {
    let _timed = Timed::new("identity: nobody");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("identity: nobody");
    let nobody = [
        "undefined",
        "null",
        "[object Object]",
        "NaN",
        "0",
        "",
        " ",
        "None",
        "00000000-0000-0000-0000-000000000000",
    ];
    let mut people = 0;
    for id in nobody {
        for side in ["a", "b"] {
            let who = json!({ "user_id": format!("nobody-{people}-{side}"), "anonymous_id": id });
            let answer = rivulet
                .client()
                .send(events::event(&mut random, "identify", &who, &json!({})).to_string())
                .await;
            assert_eq!(answer.status, 200, "{id:?}: {}", answer.text);
            let warned = answer.verdicts()[0]["warnings"].to_string();
            assert!(warned.contains("identity.nobody"), "{id:?}: {}", answer.text);
        }
        people += 1;
    }
    for device in ["nobody-d1", "nobody-d2"] {
        let who = json!({ "user_id": "", "anonymous_id": device });
        rivulet.client().send(events::event(&mut random, "identify", &who, &json!({})).to_string()).await;
        rivulet.client().send(events::page_view(&mut random, &events::of_device(device)).to_string()).await;
    }
    for device in ["nobody-d1", "nobody-d2"] {
        faults::eventually("each device is counted for itself", SOON, async || {
            rivulet
                .profile(&format!("anonymous:{device}"))
                .await
                .filter(|profile| profile["counters"]["page_view"] == 1)
        })
        .await;
    }
    for n in 0..people {
        for side in ["a", "b"] {
            let who = format!("user:nobody-{n}-{side}");
            let profile =
                faults::eventually("each has a profile", SOON, async || rivulet.profile(&who).await).await;
            assert_eq!(profile["counters"]["identify"], 1, "{who}: {profile}");
            assert!(profile["devices"].as_array().is_none_or(Vec::is_empty), "{who}: {profile}");
        }
    }
    for id in ["undefined", "null", "NaN", "0", "None"] {
        for kind in ["user", "anonymous"] {
            assert!(rivulet.profile(&format!("{kind}:{id}")).await.is_none(), "somebody is {kind}:{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_device_of_the_same_name_are_two() {
    let _timed = Timed::new("identity: kinds");
    let rivulet = Rivulet::with(Options::default().set("log", "partitions", 1)).await;
    let mut random = Random::new(11);
    rivulet.client().send(events::page_view(&mut random, &events::of_user("same")).to_string()).await;
    rivulet
        .client()
        .send(events::product_view(&mut random, &events::of_device("same"), "tea").to_string())
        .await;
    let device = faults::eventually("the device has a profile", SOON, async || {
        rivulet.profile("anonymous:same").await
    })
    .await;
    let user = rivulet.profile("user:same").await.unwrap();
    assert_eq!(
        (&user["counters"]["page_view"], &user["counters"]["product_view"]),
        (&json!(1), &Value::Null),
        "{user}"
    );
    assert_eq!(
        (&device["counters"]["page_view"], &device["counters"]["product_view"]),
        (&Value::Null, &json!(1)),
        "{device}"
    );
    assert_eq!(rivulet.profile("same").await.unwrap()["profile"], "user:same", "a bare id is a user first");
}
