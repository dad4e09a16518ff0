//! The page in a real browser: what it says of every state, that it fits, and that no name on it
//! can become markup.

use std::sync::Arc;

use chromiumoxide::Page;
use rollgate::{
    api::{
        ApiOptions,
        access::{
            Access,
            policy::{Policy, Scope, Token},
        },
        desk::{FaultView, IgnoredFile, RuleFileView, RuleFiles},
    },
    engine::observation::Time,
};
use sha2::{Digest, Sha256};

use crate::{
    story::Story,
    surfer::{NARROW, Surfer, WIDE, check_fits, picture, text},
    wire::{PATIENCE, Server},
};

/// A token that may look on.
const TOKEN: &str = "rgt_page-0123456789012345678901234567890123456789";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_a_token_where_one_is_wanted() {
    let token = Token {
        name: "wall-display".to_owned(),
        scope: Scope::Read,
        sha256: Sha256::digest(TOKEN).into(),
        in_path: false,
        expires: None,
    };
    let policy = Policy { tokens: vec![token], ..Policy::default() };
    let access = Access::new(policy, Arc::new(|| Time(0)));
    let options = ApiOptions { access: access.clone(), ..ApiOptions::default() };
    let server = Server::start(options).await;
    server.desk.tell(Story::errors("a5", "cart"));
    server.desk.advance("a5", 48);
    let surfer = Surfer::start().await;
    for (width, scheme) in [(WIDE, "light"), (NARROW, "dark")] {
        let url = format!("http://{}/#/analyses/a5", server.address);
        let page = surfer.open(&url, width, scheme).await;
        until(&page, "document.activeElement.id === 'token'").await;
        let name = |what: &str| format!("{what}_{width}_{scheme}");
        check_fits(&page, &name("sign_in")).await;
        picture(&page, &name("sign_in")).await;
        enter(&page, "rgt_wrong").await;
        let said = "document.querySelector('#trouble').innerText === \
                    'Not taken: the token is none that is configured here.'";
        until(&page, said).await;
        picture(&page, &name("sign_in_refused")).await;
        enter(&page, TOKEN).await;
        until(&page, "document.querySelector('#verdict').textContent === 'Investigate'").await;
        until(&page, "document.querySelector('#link').textContent === 'live'").await;
        until(
            &page,
            "document.querySelector('#asker').innerText.includes('wall-display may read')",
        )
        .await;
        check_fits(&page, &name("signed_in")).await;
        picture(&page, &name("signed_in")).await;
        // The stream of events brings the next look, and the token is in no address.
        let look = text(&page, "document.querySelector('.hold').innerText").await;
        server.desk.advance("a5", 1);
        until(&page, &format!("document.querySelector('.hold').innerText !== {look:?}")).await;
        assert!(!page.url().await.unwrap().unwrap().contains("rgt_"));
        // It is still known after a reload of the tab; signed out it is not.
        page.reload().await.unwrap();
        until(&page, "document.querySelector('#verdict') !== null").await;
        page.evaluate("document.querySelector('.facts a').click()").await.unwrap();
        until(&page, "document.body.innerText.trim() === 'version: 1'").await;
        page.goto(&url).await.unwrap();
        page.reload().await.unwrap();
        until(&page, "document.querySelector('#asker button') !== null").await;
        page.evaluate("document.querySelector('#asker button').click()").await.unwrap();
        until(&page, "document.querySelector('#token') !== null").await;
        assert_eq!(text(&page, "String(sessionStorage.length)").await, "0");
        page.close().await.unwrap();
    }
    // A token that is taken away while the page is open.
    let page = surfer.open(&format!("http://{}/", server.address), WIDE, "dark").await;
    until(&page, "document.querySelector('#token') !== null").await;
    enter(&page, TOKEN).await;
    until(&page, "document.querySelector('.entry') !== null").await;
    let mut policy = (*access.policy()).clone();
    policy.tokens[0].sha256 = [0; 32];
    access.replace(policy);
    until(&page, "document.querySelector('#token') !== null").await;
    surfer.close().await;
}

async fn enter(page: &Page, token: &str) {
    let enter = format!(
        "document.querySelector('#token').value = {token:?}; \
         document.querySelector('.signin button').click()"
    );
    page.evaluate(enter).await.unwrap();
}

async fn until(page: &Page, expression: &str) {
    crate::surfer::until(page, expression, PATIENCE).await;
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
        (Story::healthy("a7", "billing").with_gap(), 50),
        (Story::healthy("a8", "ledger").in_steps(), 50),
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
            ("rolled_back", server.address, "analyses/a3", "One instance of 2 is to blame"),
            ("promoted", server.address, "analyses/a2", "no rule fires"),
            ("running", server.address, "analyses/a5", "measured on 1\u{a0}h of history"),
            ("in_steps", server.address, "analyses/a8", "step 2 of 3, 50\u{a0}% of the traffic"),
            ("no_traffic", server.address, "analyses/a4", "No traffic: 10.0.0.7:8080"),
            ("gap", server.address, "analyses/a7", "The target did not answer: 10.0.2.2:8080"),
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

fn rule_file(name: &str, state: &str) -> RuleFileView {
    RuleFileView {
        name: name.into(),
        file: format!("{name}.yaml"),
        state: state.into(),
        since: 1_790_000_000.0,
        sha256: Some("3b5f".repeat(16)),
        loaded_at: Some(1_789_000_000.0),
        refused_sha256: None,
        faults: Vec::new(),
        more_faults: 0,
        warnings: Vec::new(),
    }
}

/// One of each state; the bad ones with a version before, without one, and unreadable.
pub fn rule_files() -> RuleFiles {
    let fault = |line, message: &str, hint: Option<&str>| FaultView {
        line,
        column: line.map(|_| 12),
        lint: None,
        message: message.into(),
        means: None,
        expected: line.map(|_| "`rollback`, `investigate` or `ok`".into()),
        hint: hint.map(str::to_owned),
    };
    let mut checkout = rule_file("checkout", "bad");
    checkout.faults = vec![
        fault(Some(14), "`then` is `rollbak`", Some("did you mean `rollback`?")),
        fault(Some(15), "no signal is called <img src=x onerror=window.hit=1>", None),
    ];
    let mut fresh = rule_file("a-rule-file-with-a-rather-long-name-in-a-team-of-its-own", "bad");
    (fresh.sha256, fresh.loaded_at) = (None, None);
    fresh.faults = vec![fault(Some(1), "the file is empty", None); 7];
    fresh.more_faults = 40;
    let mut unread = rule_file("ledger", "bad");
    unread.faults = vec![fault(None, "it cannot be read: Permission denied (os error 13)", None)];
    let mut mail = rule_file("mail", "good");
    mail.warnings = vec![FaultView {
        lint: Some("no-liveness".into()),
        means: Some("a canary that is gone is missing data and is never rolled back".into()),
        ..fault(Some(9), "no rule is on health", Some("add `app is down for 3 checks`"))
    }];
    RuleFiles {
        directory_fault: None,
        rules: vec![fresh, checkout, unread, mail, rule_file("old", "gone")],
        ignored: vec![IgnoredFile {
            file: "not a name.yaml".into(),
            why: "its name may have letters, digits, - and _ only".into(),
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_file_that_does_not_load_is_on_every_view() {
    let server = scene().await;
    server.desk.set_rules(rule_files());
    let surfer = Surfer::start().await;
    for (width, scheme) in [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")] {
        for (name, path) in
            [("bad_rules", ""), ("bad_rules_analysis", "analyses/a5"), ("rules", "rules")]
        {
            let name = format!("{name}_{width}_{scheme}");
            let url = format!("http://{}/#/{path}", server.address);
            let page = surfer.open(&url, width, scheme).await;
            // The view of all rule files says by itself what a banner says elsewhere.
            let (place, bad, unusable) = match path {
                "rules" => ("main", "checkout", "There is no version in use"),
                _ => ("#troubles", "Rule file checkout.yaml", "that name it are refused"),
            };
            let says = format!("document.querySelector('{place}').innerText.includes");
            for words in [bad, "14:12", "did you mean", "3b5f3b5f3b5f", unusable] {
                until(&page, &format!("{says}({words:?})")).await;
            }
            until(&page, "!!document.querySelector('main .card')").await;
            check_fits(&page, &name).await;
            picture(&page, &name).await;
            let found = "String(document.querySelectorAll('aside img, main img').length + (window.hit || 0))";
            assert_eq!(text(&page, found).await, "0");
            page.close().await.unwrap();
        }
    }
    // It goes when the file is mended, and comes back for the whole directory.
    let page = surfer.open(&format!("http://{}/#/rules", server.address), WIDE, "light").await;
    until(&page, "document.body.innerText.includes('Not in the directory since')").await;
    until(&page, "document.querySelector('.warnings').open = true").await;
    until(&page, "document.body.innerText.includes('so a canary that is gone is missing')").await;
    until(&page, "document.body.innerText.includes('not a name.yaml')").await;
    page.evaluate("location.hash = '#/'").await.unwrap();
    until(&page, "!document.querySelector('#troubles').hidden").await;
    page.evaluate("location.hash = '#/rules'").await.unwrap();
    until(&page, "document.querySelector('#troubles').hidden").await;
    let mended = RuleFiles { rules: vec![rule_file("mail", "good")], ..RuleFiles::default() };
    server.desk.set_rules(mended.clone());
    until(&page, "document.querySelector('#troubles').hidden").await;
    until(&page, "!document.body.innerText.includes('checkout')").await;
    let lost = Some("/etc/rollgate/rules cannot be listed: Stale file handle".to_owned());
    server.desk.set_rules(RuleFiles { directory_fault: lost, ..mended });
    until(&page, "document.querySelector('#troubles').innerText.includes('Stale file handle')")
        .await;
    surfer.close().await;
}
