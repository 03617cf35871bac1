//! `rivulet schema`: what would break is known before it does.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::faults::Timed;
use tests::rivulet::{Options, Rivulet, run};

/// Writes schema documents below a folder of the test.
fn write(rivulet: &Rivulet, folder: &str, documents: &[(&str, Value)]) {
    let root = rivulet.path(folder);
    for (path, document) in documents {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, document.to_string()).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_what_a_new_version_breaks_and_what_to_do() {
    let _timed = Timed::new("schema check --against");
    let rivulet = Rivulet::prepared(Options::default());
    let open = json!({"properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}});
    let strict = json!({"required": ["sku"], "properties": {"sku": {"type": "string"}, "n": {"type": "integer", "maximum": 5}}});
    write(&rivulet, "published", &[("x_order/1.json", open.clone())]);
    write(&rivulet, "minor", &[("x_order/1.json", open.clone()), ("x_order/1.1.json", strict.clone())]);
    write(&rivulet, "major", &[("x_order/1.json", open.clone()), ("x_order/2.json", strict.clone())]);
    write(&rivulet, "changed", &[("x_order/1.json", strict.clone())]);
    write(&rivulet, "gone", &[("x_other/1.json", open.clone())]);
    write(&rivulet, "wider", &[("x_order/1.json", strict), ("x_order/1.1.json", open)]);
    let check = async |arguments: &[&str]| {
        let output = rivulet.run(&[&["schema", "check"], arguments].concat()).await;
        (output.status.code(), text(&output.stdout))
    };

    let (code, told) = check(&["minor", "--against", "published"]).await;
    assert_eq!(code, Some(1), "{told}");
    for words in [
        "x_order@1 -> x_order@1.1.0: BROKEN",
        "/metadata  required  1 lets `sku` be absent, 1.1.0 requires it",
        "/metadata/n  maximum",
        "or raise the major version",
    ] {
        assert!(told.contains(words), "no `{words}`: {told}");
    }
    let (code, told) = check(&["major", "--against", "published"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("breaks, as its major version says"), "{told}");
    let (code, told) = check(&["changed", "--against", "published"]).await;
    assert!(code == Some(1) && told.contains("a published version must not change"), "{told}");
    let (code, told) = check(&["gone", "--against", "published"]).await;
    assert!(code == Some(1) && told.contains("x_order@1 is gone"), "{told}");
    for (mode, right) in [("backward", 0), ("forward", 1), ("full", 1)] {
        assert_eq!(check(&["wider", "--mode", mode]).await.0, Some(right), "{mode}");
    }
    let (code, told) = check(&["minor", "--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["broken"]), (Some(1), &json!(1)));
    let found = &told["comparisons"][0]["differences"][0];
    assert_eq!((&found["breaks"], &found["pointer"]), (&json!("backward"), &json!("/metadata/n")), "{told}");
    assert_eq!(check(&["published", "--against", "no-such-folder"]).await.0, Some(1));

    write(&rivulet, "misspelt", &[("x/1.json", json!({"requried": ["a"], "x-mode": "observe"}))]);
    let (code, told) = check(&["misspelt"]).await;
    assert!(
        code == Some(0) && told.contains("`requried` is no keyword") && !told.contains("`x-mode`"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_if_counts_what_would_break_by_type_source_and_library() {
    let _timed = Timed::new("schema what-if");
    let now = json!({"properties": {"n": {"type": "integer"}, "mail": {"x-pii": "mask"}}});
    let rivulet = Rivulet::with(Options::default().schema("x_order/1.json", &now)).await;
    let event = |event_type: &str, library: &str, metadata: Value| json!({"event_type": event_type, "user_id": "w", "context": {"library": {"name": "app", "version": library}}, "metadata": metadata});
    let mut events = vec![
        event("x_order", "1.0", json!({"n": 1})),
        event("x_order", "1.0", json!({"n": 2, "sku": "a"})),
        event("x_order", "2.0", json!({"n": 3, "sku": "a"})),
        event("x_order", "2.0", json!({"n": 4, "sku": 5})),
        event("x_order", "2.0", json!({"n": 5, "mail": "jo@shop.example"})),
        event("x_custom", "2.0", json!({"any": 1})),
    ];
    events.push(json!({"event_type": "x_order", "user_id": "w", "metadata": {"n": 7}}));
    let page = Value::from(events).to_string();
    assert_eq!(rivulet.client().send(page).await.status, 200);
    let server = Value::from(vec![event("x_order", "1.0", json!({"n": 8})); 3]).to_string();
    rivulet.secret().send(server).await;
    let refused = event("x_order", "2.0", json!({"n": "six", "sku": "a"}));
    assert_eq!(rivulet.client().send(refused.to_string()).await.statuses(), ["rejected"]);

    let candidate = json!({"required": ["sku"], "properties": {"sku": {"type": "string"}}});
    write(&rivulet, "next", &[("x_order/1.json", now.clone()), ("x_order/2.json", candidate)]);
    let data = rivulet.data();
    let data = data.to_str().unwrap();
    let what_if = async |more: &[&str]| {
        let output = rivulet.run(&[&["schema", "what-if", "--data", data], more].concat()).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, told, errors) = what_if(&["--schemas", "next", "--since", "1h", "--json"]).await;
    assert_eq!(code, Some(1), "{told} {errors}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let totals = ["events", "breaking", "without_schema", "not_judged", "mended"]
        .map(|name| told[name].as_u64().unwrap());
    assert_eq!(totals, [10, 6, 1, 1, 1], "{told}");
    let of = |source: &str, library: &str| {
        let groups = told["groups"].as_array().unwrap();
        let found = groups.iter().find(|group| group["source"] == source && group["library"] == library);
        found.unwrap_or_else(|| panic!("no group of {source} {library}: {told}")).clone()
    };
    let group = of("web", "app 1.0");
    assert_eq!((&group["events"], &group["breaking"]), (&json!(2), &json!(1)));
    let right = json!([{"events": 1, "pointer": "/metadata", "keyword": "required", "expected": "the property `sku`", "schema": "x_order@2"}]);
    assert_eq!(group["reasons"], right);
    let group = of("web", "app 2.0");
    assert_eq!(
        ["events", "breaking", "not_judged", "mended"].map(|name| group[name].as_u64().unwrap()),
        [3, 1, 1, 1],
        "{group}"
    );
    assert_eq!(group["reasons"][0]["pointer"], "/metadata/sku");
    assert_eq!(of("server", "app 1.0")["breaking"], 3);
    assert_eq!(of("web", "(unknown library)")["breaking"], 1);

    let (code, told, _) = what_if(&["--schemas", "next"]).await;
    assert_eq!(code, Some(1));
    assert!(told.contains("x_order  server  app 1.0: 3 of 3 would break"), "{told}");
    assert!(told.contains("10 events, 6 would break"), "{told}");
    let (code, told, _) = what_if(&["--schemas", "next", "--since", "0s"]).await;
    assert_eq!(code, Some(0), "{told}");
    let same = rivulet.path("schemas");
    assert_eq!(what_if(&["--schemas", same.to_str().unwrap()]).await.0, Some(0));
    assert_eq!(what_if(&["--schemas", "next", "--since", "soon"]).await.0, Some(1));
}

fn compiler() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node_modules/.bin/tsc");
    assert!(path.exists(), "{} is missing: run `npm ci` first", path.display());
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_types_compile_and_find_a_wrong_event() {
    let _timed = Timed::new("schema types");
    let rivulet = Rivulet::prepared(Options::default());
    write(
        &rivulet,
        "own",
        &[
            (
                "_shared/money.json",
                json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}),
            ),
            ("Order Completed/1.json", json!({"properties": {"old": {}}})),
            (
                "Order Completed/2.json",
                json!({"description": "done */ really", "required": ["total"], "properties": {
                    "total": {"$ref": "../_shared/money.json"}, "kind": {"enum": ["a", "b\u{2028}"]}, "tree": {"$ref": "#/$defs/node"},
                    "list": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "any": true, "never": false,
                    "map": {"type": "object", "additionalProperties": {"type": "integer"}}},
                    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}}}),
            ),
            ("order-completed/1.json", json!({"$ref": "../Order%20Completed/1.json"})),
        ],
    );
    for (folder, good, bad) in [
        (
            "",
            "track('add_to_cart', { product_id: 'p', quantity: 2 }); const c: AddToCart = { product_id: 'p' }; void c;",
            vec![
                "track('add_to_cart', { quantity: 2 });",
                "track('add_to_cart', { product_id: 'p', quantity: 'two' });",
                "track('add_to_kart', { product_id: 'p' });",
                "track('add_to_cart', { product_id: 'p', quantitty: 2 });",
            ],
        ),
        (
            "own",
            "track('Order Completed', { total: { amount: 1 }, kind: 'a', tree: { next: { next: {} } }, list: ['x', null], map: { a: 1 } }); track('order-completed', { old: 1 });",
            vec![
                "track('Order Completed', {});",
                "track('Order Completed', { total: { amount: 1 }, kind: 'c' });",
                "track('Order Completed', { total: { amount: 1 }, tree: { next: 1 } });",
            ],
        ),
    ] {
        let arguments: Vec<&str> =
            ["schema", "types", "--lang", "ts", folder].into_iter().filter(|word| !word.is_empty()).collect();
        let types = rivulet.run(&arguments).await;
        assert!(types.status.success(), "{}", text(&types.stderr));
        std::fs::write(rivulet.path("events.ts"), &types.stdout).unwrap();
        let compile = async |code: &str| {
            let code = format!(
                "import type {{ Track, AddToCart }} from './events';\ndeclare const track: Track;\n{code}\n"
            );
            let code = if folder.is_empty() { code } else { code.replace(", AddToCart", "") };
            std::fs::write(rivulet.path("use.ts"), code).unwrap();
            let mut command = Command::new(compiler());
            command.args([
                "--noEmit",
                "--strict",
                "--skipLibCheck",
                "--types",
                "",
                "--target",
                "es2022",
                "--module",
                "esnext",
                "--moduleResolution",
                "bundler",
            ]);
            let output = run(command.arg(rivulet.path("use.ts")).arg(rivulet.path("events.ts"))).await;
            (output.status.success(), text(&output.stdout))
        };
        let (fits, told) = compile(good).await;
        assert!(fits, "{told}\n{}", text(&types.stdout));
        // All at once: each line has to be complained of.
        let (fits, told) = compile(&bad.join("\n")).await;
        assert!(!fits);
        for line in 3..3 + bad.len() {
            assert!(told.contains(&format!("use.ts({line},")), "line {line} passes: {told}");
        }
    }
}
