//! The page in a real browser: what it says of every state, that it fits, and that no name on it
//! can become markup. Set `ROLLGATE_PICTURES` to a directory to have its pictures kept there.

use std::{path::PathBuf, time::Duration};

use chromiumoxide::{
    Browser, BrowserConfig, Page,
    cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams},
    page::ScreenshotParams,
};
use futures_util::StreamExt;
use rollgate::api::ApiOptions;

use crate::{
    story::Story,
    wire::{PATIENCE, Server},
};

const WIDE: i64 = 1280;
const NARROW: i64 = 400;

struct Surfer {
    browser: Browser,
    events: tokio::task::JoinHandle<()>,
    _profile: tempfile::TempDir,
}

impl Surfer {
    async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let config = BrowserConfig::builder()
            .no_sandbox()
            .arg("--disable-gpu")
            .user_data_dir(profile.path())
            .build()
            .expect("this test needs chromium on the PATH: apt-get install chromium");
        let (browser, mut handler) = Browser::launch(config)
            .await
            .expect("this test needs a chromium that starts: apt-get install chromium");
        let events = tokio::spawn(async move { while handler.next().await.is_some() {} });
        Self { browser, events, _profile: profile }
    }

    async fn open(&self, url: &str, width: i64, scheme: &str) -> Page {
        let page = self.browser.new_page("about:blank").await.unwrap();
        page.execute(SetDeviceMetricsOverrideParams::new(width, 900, 1.0, false)).await.unwrap();
        let feature = MediaFeature::new("prefers-color-scheme", scheme);
        page.emulate_media_features(vec![feature]).await.unwrap();
        page.goto(url).await.unwrap();
        page
    }

    async fn close(mut self) {
        self.browser.close().await.unwrap();
        self.browser.wait().await.unwrap();
        self.events.abort();
    }
}

/// Asks the page until the expression is true.
async fn until(page: &Page, expression: &str) {
    let asking = async {
        while !page.evaluate(expression).await.unwrap().into_value::<bool>().unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, asking).await.is_err() {
        let text = text(page, "document.body.innerText").await;
        panic!("{expression} did not come true; the page says:\n{text}");
    }
}

async fn text(page: &Page, expression: &str) -> String {
    page.evaluate(expression).await.unwrap().into_value().unwrap()
}

/// Nothing sticks out to the side, at any width.
async fn check_fits(page: &Page, name: &str) {
    let widest = "[...document.querySelectorAll('main *')]\
                  .filter(e => !e.closest('.hidden, thead') && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)\
                  .map(e => e.outerHTML.slice(0, 120)).join('\\n')";
    assert_eq!(text(page, widest).await, "", "{name} is too wide");
}

async fn picture(page: &Page, name: &str) {
    let Some(directory) = std::env::var_os("ROLLGATE_PICTURES").map(PathBuf::from) else { return };
    let whole = ScreenshotParams::builder().full_page(true).build();
    page.save_screenshot(whole, directory.join(format!("{name}.png"))).await.unwrap();
}

/// One analysis of each kind, at the moment that shows most of it.
async fn scene() -> Server {
    let server = Server::start(ApiOptions::default()).await;
    for (story, looks) in [
        (Story::idle("a1", "mail"), 500),
        (Story::healthy("a2", "catalog"), 500),
        (Story::errors("a3", "checkout"), 500),
        (Story::idle("a4", "search"), 30),
        (Story::errors("a5", "cart"), 48),
        (Story::healthy("a6", "a-service-with-a-rather-long-name-in-a-team-of-its-own"), 0),
    ] {
        let id = story.id.clone();
        server.desk.tell(story);
        server.desk.advance(&id, looks);
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_every_state_at_every_width_in_light_and_dark() {
    let (server, empty) = (scene().await, Server::start(ApiOptions::default()).await);
    let surfer = Surfer::start().await;
    for (width, scheme) in [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")] {
        for (name, address, path, says) in [
            ("empty", empty.address, "", "No analyses yet"),
            ("list", server.address, "", "a-service-with-a-rather-long-name"),
            ("rolled_back", server.address, "analyses/a3", "Roll back: errors of the canary"),
            ("promoted", server.address, "analyses/a2", "no rule fires"),
            ("running", server.address, "analyses/a5", "Errors of the canary are beyond"),
            ("no_traffic", server.address, "analyses/a4", "No traffic: 10.0.0.7:8080"),
            ("before_first_look", server.address, "analyses/a6", "No look has been taken yet"),
            ("unknown", server.address, "analyses/none", "There is no such analysis"),
        ] {
            let name = format!("{name}_{width}_{scheme}");
            let page = surfer.open(&format!("http://{address}/#/{path}"), width, scheme).await;
            until(&page, &format!("document.body.innerText.includes({says:?})")).await;
            check_fits(&page, &name).await;
            picture(&page, &name).await;
            page.close().await.unwrap();
        }
    }
    surfer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_follows_the_analysis_to_its_verdict() {
    let server = scene().await;
    let surfer = Surfer::start().await;
    let url = format!("http://{}/#/analyses/a5", server.address);
    let page = surfer.open(&url, WIDE, "light").await;
    until(&page, "document.querySelector('#link').textContent === 'live'").await;
    let before = text(&page, "document.querySelector('[role=meter]').ariaValueText").await;
    assert_eq!(before, "2.5 of 3.6 decades");
    server.desk.advance("a5", 1);
    until(&page, "document.querySelector('[role=meter]').ariaValueText === '2.8 of 3.6 decades'")
        .await;
    let points = "document.querySelector('path.canary').getAttribute('d').split('L').length === 49";
    until(&page, points).await;
    let left = "document.querySelector('.canvas').dispatchEvent(new KeyboardEvent('keydown', \
                {key: 'ArrowLeft', bubbles: true, cancelable: true}))";
    page.evaluate(left).await.unwrap();
    let said = text(&page, "document.querySelector('.canvas').ariaLabel").await;
    assert!(said.starts_with("error_rate at 0:48: baseline 0.529"), "{said}");
    server.desk.advance("a5", 100);
    until(&page, "document.querySelector('#verdict').textContent === 'Roll back'").await;
    let reason = text(&page, "document.querySelector('#reason').textContent").await;
    assert!(reason.starts_with("Roll back: errors of the canary are 6.2 %"), "{reason}");
    until(&page, "document.body.innerText.includes('deploy-hook')").await;
    surfer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_said_and_the_last_state_stays() {
    let server = scene().await;
    let surfer = Surfer::start().await;
    let url = format!("http://{}/#/analyses/a5", server.address);
    let page = surfer.open(&url, WIDE, "light").await;
    until(&page, "document.querySelector('#link').textContent === 'live'").await;
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
    until(&page, "document.querySelector('#link').dataset.state === 'lost'").await;
    until(&page, "document.querySelector('#verdict').textContent === 'Investigate'").await;
    let said = text(&page, "document.querySelector('#link').textContent").await;
    assert_eq!(said, "connection lost, showing look 48");
    picture(&page, "connection_lost").await;
    surfer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_is_not_taken_for_a_calm_one() {
    let server = scene().await;
    let surfer = Surfer::start().await;
    let url = format!("http://{}/#/analyses/a5", server.address);
    let page = surfer.open(&url, WIDE, "light").await;
    until(&page, "document.querySelector('#link').textContent.startsWith('no new look for')").await;
    server.desk.advance("a5", 1);
    until(&page, "document.querySelector('#link').textContent === 'live'").await;
    surfer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_becomes_markup() {
    let server = Server::start(ApiOptions::default()).await;
    let hostile = "<img src=x onerror=window.hit=1><script>window.hit=1</script>\u{202e}";
    let mut story = Story::healthy("a1", hostile);
    hostile.clone_into(&mut story.canary.version);
    story.canary.targets = vec![format!("http://{hostile}"), "javascript:window.hit=1".into()];
    server.desk.tell(story);
    server.desk.advance("a1", 20);
    let surfer = Surfer::start().await;
    for path in ["", "analyses/a1"] {
        let url = format!("http://{}/#/{path}", server.address);
        let page = surfer.open(&url, NARROW, "light").await;
        until(&page, "document.body.innerText.includes('onerror=window.hit=1')").await;
        let found =
            "String(document.querySelectorAll('main img, main script').length + (window.hit || 0))";
        assert_eq!(text(&page, found).await, "0");
        check_fits(&page, path).await;
    }
    surfer.close().await;
}
