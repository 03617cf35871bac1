//! Registries read from folders: layout, references between documents, what is passed over and what is refused.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rivulet-schemas-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn load(&self) -> Result<Registry, Error> {
        Registry::load(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fault(registry: &Registry, event_type: &str, metadata: &Value) -> Option<(String, String)> {
    match registry.judge(&EventType::new(event_type), None, Some(metadata)) {
        Judgement::Valid(_) => None,
        Judgement::Invalid(reason) => Some((reason.pointer.unwrap(), reason.keyword.unwrap())),
        Judgement::UnknownType => panic!("{event_type} is known"),
    }
}

#[test]
fn documents_refer_to_each_other_by_path_and_by_id() {
    let folder = Folder::new("refs");
    folder
        .write("_shared/money.json", r##"{"type":"object","required":["amount"],"properties":{"amount":{"$ref":"#/$defs/amount"}},
            "$defs":{"amount":{"type":"number","minimum":0}}}"##)
        .write("_shared/address.json", r#"{"$id":"https://shop.example/address","$anchor":"all","required":["city"],
            "properties":{"city":{"type":"string"},"price":{"$ref":"rivulet:///_shared/money.json"}}}"#)
        .write("order/1.json", r#"{"properties":{"total":{"$ref":"../_shared/money.json"},
            "to":{"$ref":"https://shop.example/address#all"},"fee":{"$ref":"../_shared/money.json#/$defs/amount"}}}"#)
        .write("Order Completed/1.json", r#"{"$ref":"../order/1.json","required":["total"]}"#)
        .write("Order Completed/1.1.0.json", r#"{"$ref":"1.json"}"#);
    let registry = folder.load().unwrap();
    let ids: Vec<String> = registry.ids().map(ToString::to_string).collect();
    assert_eq!(ids, ["Order Completed@1", "Order Completed@1.1.0", "order@1"]);
    let good = json!({"total":{"amount":1},"to":{"city":"x","price":{"amount":2}},"fee":3});
    for event_type in ["order", "Order Completed"] {
        assert_eq!(fault(&registry, event_type, &good), None);
        for (metadata, pointer, keyword) in [
            (json!({"total":{"amount":-1}}), "/metadata/total/amount", "minimum"),
            (json!({"total":{"amount":1},"to":{}}), "/metadata/to", "required"),
            (json!({"total":{"amount":1},"to":{"city":"x","price":{}}}), "/metadata/to/price", "required"),
            (json!({"total":{"amount":1},"fee":"x"}), "/metadata/fee", "type"),
        ] {
            let right = Some((pointer.to_owned(), keyword.to_owned()));
            assert_eq!(fault(&registry, event_type, &metadata), right, "{event_type} {metadata}");
        }
    }
    assert_eq!(registry.judge(&EventType::new("_shared"), None, None), Judgement::UnknownType);
}

#[test]
fn what_is_no_document_is_passed_over_and_what_cannot_be_one_is_refused() {
    let folder = Folder::new("layout");
    folder
        .write("x/1.json", "{}")
        .write("x/README.md", "…")
        .write("x/examples/valid/a.json", "nothing")
        .write("README.md", "…")
        .write(".git/config/1.json", "nothing")
        .write("x/.1.json.swp", "nothing")
        .write("empty/README.md", "…");
    assert_eq!(folder.load().unwrap().ids().count(), 1);
    for (path, text, word) in [
        ("x/one.json", "{}", "named by its version"),
        ("x/0.1.0.json", "{}", "named by its version"),
        ("x/1.0.0.json", "{}", "and so is"),
        ("x/2.json", r#"{"$id":"1.json"}"#, "and so is"),
        ("_shared/a.json", r#"{"$ref":"b.json"}"#, "b.json"),
        ("_shared/a.json", r##"{"$defs":{"a":{"$ref":"#/$defs/a"}}}"##, "never ends"),
        ("y/1.json", &format!("{{\"description\":\"{}\"}}", "x".repeat(2 << 20)), "bytes"),
    ] {
        folder.write(path, text);
        let error = folder.load().expect_err(path).to_string();
        assert!(error.contains(path) && error.contains(word), "{path}: {error}");
        fs::remove_file(folder.0.join(path)).unwrap();
    }
    assert!(folder.load().is_ok());
    // A pipe has no end: it is not opened.
    let pipe = folder.0.join("x/3.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert!(folder.load().unwrap_err().to_string().contains("ordinary file"));
}
