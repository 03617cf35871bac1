//! A client for Rust web apps (Leptos, Yew, Dioxus): the same engine as the script's, transport by `gloo-net`, timers by
//! `gloo-timers`, storage and page life by `web-sys`.
//!
//! Tabs do not elect a leader here: each sends what it finds in storage, and the gateway counts an event once by its id.
//!
//! **Invariant:** the engine is borrowed only while it steps, never while a command is carried out, so that a listener may call
//! the client.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::RefCell;

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_util::{SinkExt as _, StreamExt as _, future};
use gloo_events::EventListener;
use gloo_net::http::Request;
use gloo_net::websocket::{Message, futures::WebSocket};
use gloo_timers::callback::Timeout;
use wasm_bindgen_futures::spawn_local;

use crate::commands::Commands;
use crate::engine::Engine;
use crate::id::Mint;
use crate::input::{Channel, Command, Consent, Delivery, Input, Priority, Tracked};
use crate::{host, packed};

/// Name and version, as the gateway sees them.
const SDK: &str = concat!("rivulet-gloo/", env!("CARGO_PKG_VERSION"));
/// Prefix of the keys in storage: the script's, so that both share a page's identity.
const PREFIX: &str = "rv:";

/// How to start a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The public write key.
    pub key: String,
    /// Where the gateway is, such as `https://events.example.com`.
    pub host: String,
    /// Whether anything may be stored or sent.
    pub consent: Consent,
}

type Listener = Rc<dyn Fn(Delivery, &str)>;

struct Inner {
    options: Options,
    engine: RefCell<Engine>,
    mint: RefCell<Mint>,
    /// The server's name of the session, to go on with after a cut.
    session: RefCell<Option<String>>,
    socket: RefCell<Option<UnboundedSender<String>>>,
    /// Counts sockets, so that the end of an old one is not taken for the present one's.
    sockets: RefCell<u32>,
    timer: RefCell<Option<Timeout>>,
    listeners: RefCell<Vec<Listener>>,
    page: RefCell<Vec<EventListener>>,
}

/// Sends events and hears verdicts and decisions. Clones are one client.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Starts with what earlier visits have left in storage.
    pub fn start(options: Options) -> Self {
        let consent = options.consent;
        let client = Self(Rc::new(Inner {
            options,
            engine: RefCell::default(),
            mint: RefCell::default(),
            session: RefCell::default(),
            socket: RefCell::default(),
            sockets: RefCell::default(),
            timer: RefCell::default(),
            listeners: RefCell::default(),
            page: RefCell::default(),
        }));
        client.restore(|key| key.len() == 1);
        client.run(&Input::Start { socket: true, consent });
        client.run(&Input::Leader(true));
        client.restore(|key| key.len() > 1);
        client.listen_to_page();
        client
    }

    /// Something happened. `metadata_json` is a JSON object, as `serde_json::to_string` makes it.
    pub fn track(&self, event_type: &str, metadata_json: &str) {
        self.event(None, event_type, metadata_json);
    }

    /// The visitor is known from now on. `traits_json` is a JSON object.
    pub fn identify(&self, user_id: &str, traits_json: &str) {
        let mut metadata = String::from(r#"{"traits":"#);
        metadata.push_str(traits_json);
        metadata.push('}');
        self.event(Some(user_id), "identify", &metadata);
    }

    /// The visitor has signed out: another device id, no person.
    pub fn reset(&self) {
        let device = self.mint();
        self.run(&Input::Reset { device: &device });
    }

    /// Sends what waits, if the server does not want a pause.
    pub fn flush(&self) {
        self.run(&Input::Flush);
    }

    /// The visitor's choice.
    pub fn consent(&self, consent: Consent) {
        self.run(&Input::Consent(consent));
    }

    /// Calls back with each delivery's JSON.
    pub fn on(&self, listener: impl Fn(Delivery, &str) + 'static) {
        self.0.listeners.borrow_mut().push(Rc::new(listener));
    }

    fn event(&self, user: Option<&str>, event_type: &str, metadata_json: &str) {
        let id = self.mint();
        let timestamp = String::from(js_sys::Date::new_0().to_iso_string());
        let mut json = String::from(r#""event_type":"#);
        schemas::wire::push_string(&mut json, event_type);
        for text in [
            r#","timestamp":""#,
            &timestamp,
            r#"","metadata":"#,
            metadata_json,
            r#","context":{"library":{"name":"rivulet-gloo"}}"#,
        ] {
            json.push_str(text);
        }
        let event = Tracked { priority: Priority::Normal, id: &id, json: &json };
        match user {
            Some(user) => {
                let mut user_json = String::new();
                schemas::wire::push_string(&mut user_json, user);
                self.run(&Input::Identify { user_json: &user_json, event });
            }
            None => self.run(&Input::Track(event)),
        }
    }

    fn mint(&self) -> String {
        let [first, second, third, _] = entropy();
        self.0.mint.borrow_mut().next(js_sys::Date::now(), [first, second, third])
    }

    fn run(&self, input: &Input<'_>) {
        self.run_packed(&packed::write(input));
    }

    fn run_packed(&self, input: &str) {
        let [_, _, _, random] = entropy();
        let commands: Commands = self.0.engine.borrow_mut().step_packed(input, js_sys::Date::now(), random);
        for command in commands.iter() {
            self.obey(command);
        }
    }

    fn obey(&self, command: Command<'_>) {
        match command {
            Command::Put { key, value } => {
                let written = storage().and_then(|storage| storage.set_item(&prefixed(key), value).ok());
                if written.is_none() {
                    self.run(&Input::PutFailed { key });
                }
            }
            // What cannot be removed is sent again some day, and the server knows it by its id.
            Command::Del { key } => drop(storage().map(|storage| storage.remove_item(&prefixed(key)))),
            Command::Purge => {
                for key in keys() {
                    drop(storage().map(|storage| storage.remove_item(&key)));
                }
            }
            Command::OpenSocket => self.open(),
            Command::SendSocket(text) => {
                if let Some(socket) = &*self.0.socket.borrow() {
                    // Refused only by a socket that has ended, which is told apart.
                    let _ = socket.unbounded_send(text.into());
                }
            }
            Command::CloseSocket => drop(self.0.socket.borrow_mut().take()),
            Command::SendHttp { request, channel, body } => self.send(request, channel, body.into()),
            Command::SetTimer(millis) => {
                let client = self.clone();
                let millis = packed::whole(millis);
                *self.0.timer.borrow_mut() = Some(Timeout::new(millis, move || client.run(&Input::Timer)));
            }
            Command::Deliver(kind, json) => {
                let listeners = self.0.listeners.borrow().clone();
                for listener in listeners {
                    listener(kind, json);
                }
            }
        }
    }

    fn open(&self) {
        let mut number = self.0.sockets.borrow_mut();
        *number += 1;
        let number = *number;
        let url = self.url("/v1/stream").replacen("http", "ws", 1);
        let (sender, receiver) = unbounded();
        *self.0.socket.borrow_mut() = Some(sender);
        let client = self.clone();
        spawn_local(async move {
            if let Ok(socket) = WebSocket::open_with_protocol(&url, schemas_subprotocol()) {
                client.carry(number, socket, receiver).await;
            }
            if *client.0.sockets.borrow() == number && client.0.socket.borrow_mut().take().is_some() {
                client.run(&Input::SocketClosed);
            }
        });
    }

    /// Carries texts both ways until either side ends.
    async fn carry(&self, number: u32, socket: WebSocket, mut texts: UnboundedReceiver<String>) {
        let (mut sink, mut stream) = socket.split();
        if future::poll_fn(|context| sink.poll_ready_unpin(context)).await.is_err() {
            return;
        }
        let mut hello = String::new();
        let session = self.0.session.borrow().clone();
        schemas::wire::hello_frame(&mut hello, Some(&self.0.options.key), Some(SDK), session.as_deref());
        if sink.send(Message::Text(hello)).await.is_err() {
            return;
        }
        self.run(&Input::SocketOpen);
        let client = self.clone();
        let hear = async move {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message
                    && *client.0.sockets.borrow() == number
                {
                    if let Some(session) = host::session(&text) {
                        *client.0.session.borrow_mut() = Some(session.into());
                    }
                    client.run_packed(&host::frame(&text, packed::write));
                }
            }
        };
        let say = async move {
            while let Some(text) = texts.next().await {
                if sink.send(Message::Text(text)).await.is_err() {
                    break;
                }
            }
        };
        future::select(Box::pin(hear), Box::pin(say)).await;
    }

    fn send(&self, request: u32, channel: Channel, body: String) {
        let mut url = self.url("/v1/events?key=");
        url.push_str(&String::from(js_sys::encode_uri_component(&self.0.options.key)));
        let client = self.clone();
        if channel == Channel::Parting {
            let navigator = web_sys::window().map(|window| window.navigator());
            let taken =
                navigator.and_then(|navigator| navigator.send_beacon_with_opt_str(&url, Some(&body)).ok());
            if taken != Some(true) {
                self.run_packed(&host::answer(request, 0, 0.0, "", packed::write));
            }
            return;
        }
        spawn_local(async move {
            let mut status = 0;
            let mut retry_after = 0.0;
            let mut text = String::new();
            if let Ok(post) = Request::post(&url).body(body)
                && let Ok(answer) = post.send().await
            {
                status = answer.status();
                let seconds = answer.headers().get("retry-after").unwrap_or_default();
                retry_after = packed::number(&seconds) * 1000.0;
                text = answer.text().await.unwrap_or_default();
            }
            client.run_packed(&host::answer(request, u32::from(status), retry_after, &text, packed::write));
        });
    }

    fn url(&self, path: &str) -> String {
        let mut url = self.0.options.host.trim_end_matches('/').to_string();
        url.push_str(path);
        url
    }

    fn restore(&self, pick: impl Fn(&str) -> bool) {
        let Some(storage) = storage() else { return };
        for key in keys() {
            if let Some(name) = key.strip_prefix(PREFIX).filter(|name| pick(name))
                && let Ok(Some(value)) = storage.get_item(&key)
            {
                self.run(&Input::Restored { key: name, value: &value });
            }
        }
    }

    fn listen_to_page(&self) {
        let Some(window) = web_sys::window() else { return };
        let inputs = [
            ("pagehide", Input::Hide { gone: true }),
            ("pageshow", Input::Show),
            ("online", Input::Online(true)),
            ("offline", Input::Online(false)),
        ];
        let mut listeners = self.0.page.borrow_mut();
        for (name, input) in inputs {
            let client = self.clone();
            listeners.push(EventListener::new(&window, name, move |_| client.run(&input)));
        }
        if let Some(document) = window.document() {
            let client = self.clone();
            let target = document.clone();
            listeners.push(EventListener::new(&target, "visibilitychange", move |_| {
                let hidden = document.visibility_state() == web_sys::VisibilityState::Hidden;
                client.run(if hidden { &Input::Hide { gone: false } } else { &Input::Show });
            }));
        }
    }
}

/// The subprotocol's name; `schemas::frame` has it too, but not without `std`.
const fn schemas_subprotocol() -> &'static str {
    "rivulet.v1"
}

fn storage() -> Option<web_sys::Storage> {
    web_sys::window()?.local_storage().ok()?
}

/// All of ours, in order.
fn keys() -> Vec<String> {
    let Some(storage) = storage() else { return Vec::new() };
    let mut keys: Vec<String> = (0..storage.length().unwrap_or(0))
        .filter_map(|at| storage.key(at).ok()?)
        .filter(|key| key.starts_with(PREFIX))
        .collect();
    keys.sort();
    keys
}

fn prefixed(key: &str) -> String {
    let mut name = String::from(PREFIX);
    name.push_str(key);
    name
}

fn entropy() -> [u32; 4] {
    let mut bytes = [0_u8; 16];
    let crypto = web_sys::window().and_then(|window| window.crypto().ok());
    // Without a generator ids still rise strictly within the tab.
    let _ = crypto.map(|crypto| crypto.get_random_values_with_u8_array(&mut bytes));
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    words
}
