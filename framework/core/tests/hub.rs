//! Downloads against a local HTTP server that speaks the hub's protocol, well and badly.

mod hub_server;

use std::path::Path;

use cilbench::hub::{Hub, Repository};
use hub_server::{Answer, Asked, COMMIT, Server, good, sha256};
use sha1::{Digest, Sha1};

fn data() -> Vec<u8> {
    (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn git(bytes: &[u8]) -> String {
    cilbench::hex(
        &Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize(),
    )
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("folder") }
    }

    fn hub(&self, server: &Server) -> Hub {
        Hub::new(&server.address, self.folder.path().join("hub"))
    }

    /// The blobs that the cache believes.
    fn blobs(&self) -> Vec<String> {
        let folder = self.folder.path().join("hub/models--timm--vit/blobs");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|n| !n.contains('.'))
            .collect()
    }
}

fn repo() -> Repository {
    Repository::model("timm/vit")
}

#[test]
fn a_file_is_downloaded_once_into_python_s_layout() {
    let server = Server::new(|asked, _| good(asked, "model.safetensors", &data()));
    let place = Place::new();
    let found = place.hub(&server).file(&repo(), "model.safetensors").expect("download");
    assert_eq!(
        (std::fs::read(&found.path).expect("file"), found.commit.as_str()),
        (data(), COMMIT)
    );
    let root = place.folder.path().join("hub/models--timm--vit");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).expect("ref"), COMMIT);
    assert_eq!(found.path, root.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(place.blobs(), [sha256(&data())]);
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(&found.path).expect("link"),
        Path::new("../../blobs").join(sha256(&data()))
    );
    let before = server.asked().len();
    // From now on the cache answers: again, by commit, and offline.
    assert_eq!(place.hub(&server).file(&repo(), "model.safetensors").expect("cached"), found);
    assert_eq!(
        place
            .hub(&server)
            .offline("--offline")
            .file(&repo(), "model.safetensors")
            .expect("offline"),
        found
    );
    let pinned = Repository::model(&format!("timm/vit@{COMMIT}"));
    assert_eq!(place.hub(&server).file(&pinned, "model.safetensors").expect("pinned"), found);
    assert_eq!(server.asked().len(), before);
}

#[test]
fn small_files_are_verified_by_git_s_hash() {
    let body = b"{\"architecture\": \"vit\"}".to_vec();
    let etag = git(&body);
    let serve = move |etag: String| {
        let body = body.clone();
        Server::new(move |_, _| {
            let headers = vec![
                ("x-repo-commit".into(), COMMIT.into()),
                ("etag".into(), format!("W/\"{etag}\"")),
            ];
            Answer { status: 200, headers, body: body.clone(), ..Answer::default() }
        })
    };
    Place::new().hub(&serve(etag)).file(&repo(), "deep/config.json").expect("download");
    let message = Place::new()
        .hub(&serve("0".repeat(40)))
        .with_retries(0)
        .file(&repo(), "deep/config.json")
        .expect_err("wrong hash")
        .to_string();
    assert!(message.contains("hash"), "{message}");
}

#[test]
fn a_cut_connection_is_resumed_where_it_ended() {
    let server = Server::new(|asked, _| {
        let mut answer = good(asked, "model.safetensors", &data());
        // The first two bodies end early, though a longer one is stated.
        if asked.path == "/cdn/blob" && asked.range.unwrap_or(0) < 60_000 {
            answer.stated = Some(answer.body.len());
            answer.body.truncate(30_000);
        }
        answer
    });
    let place = Place::new();
    let found = place.hub(&server).file(&repo(), "model.safetensors").expect("download");
    assert_eq!(std::fs::read(found.path).expect("file"), data());
    let ranges: Vec<String> =
        server.asked().into_iter().filter(|a| a.contains("GET /cdn")).collect();
    assert_eq!(ranges, ["GET /cdn/blob", "GET /cdn/blob from 30000", "GET /cdn/blob from 60000"]);
}

#[test]
fn a_server_without_ranges_begins_again() {
    let server = Server::new(|asked, count| {
        let mut answer = good(
            &Asked {
                method: asked.method.clone(),
                path: asked.path.clone(),
                range: None,
                token: None,
            },
            "model.safetensors",
            &data(),
        );
        if asked.path == "/cdn/blob" && count < 5 {
            answer.stated = Some(answer.body.len());
            answer.body.truncate(30_000);
        }
        answer
    });
    let found = Place::new().hub(&server).file(&repo(), "model.safetensors").map(|f| f.commit);
    assert_eq!(found.expect("download"), COMMIT);
}

/// What a bad server's answer to the body comes to; nothing may be believed.
fn refused(behaviour: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> String {
    let (server, place) = (Server::new(behaviour), Place::new());
    let message = place
        .hub(&server)
        .with_retries(1)
        .file(&repo(), "model.safetensors")
        .expect_err("must be refused")
        .to_string();
    assert_eq!(place.blobs(), Vec::<String>::new(), "{message}");
    assert!(!place.folder.path().join("hub/models--timm--vit/snapshots").exists(), "{message}");
    message
}

#[test]
fn no_bad_body_is_believed() {
    let body = |make: fn(Answer) -> Answer| {
        refused(move |asked, _| {
            let answer = good(asked, "model.safetensors", &data());
            if asked.path == "/cdn/blob" { make(answer) } else { answer }
        })
    };
    // Shorter than stated, and the server means it.
    assert!(
        body(|a| Answer { body: a.body[..a.body.len().min(500)].to_vec(), ..a }).contains("bytes")
    );
    // The right length, other bytes.
    let wrong = body(|a| Answer { body: vec![7; a.body.len()], ..a });
    assert!(wrong.contains("hash is not the one that the hub states"), "{wrong}");
    // A page of a proxy, with status 200 and 403.
    let page =
        |status| Answer { status, body: b"<html>sign in</html>".repeat(9000), ..Answer::default() };
    assert!(
        refused(move |asked, _| if asked.path == "/cdn/blob" {
            page(200)
        } else {
            good(asked, "model.safetensors", &data())
        })
        .contains("longer than")
    );
    let forbidden = refused(move |asked, _| {
        if asked.path == "/cdn/blob" {
            page(403)
        } else {
            good(asked, "model.safetensors", &data())
        }
    });
    assert!(forbidden.contains("403"), "{forbidden}");
    assert!(refused(move |_, _| page(200)).contains("what answered is no Hugging Face hub"));
}

#[test]
fn what_is_not_there_or_gated_is_said_with_what_to_do() {
    let status = |status: u16, code: &'static str| {
        refused(move |_, _| Answer {
            status,
            headers: vec![("x-error-code".into(), code.into())],
            ..Answer::default()
        })
    };
    assert!(status(404, "EntryNotFound").contains("timm/vit has no model.safetensors"));
    assert!(status(404, "RevisionNotFound").contains("has no revision 'main'"));
    let gated = status(403, "GatedRepo");
    assert!(gated.contains("is gated") && gated.contains("set HF_TOKEN"), "{gated}");
    assert!(status(401, "").contains("set HF_TOKEN"));
    assert!(status(503, "").contains("try again later"));
    let nobody =
        Hub::new("http://127.0.0.1:9", Place::new().folder.path().join("hub")).with_retries(0);
    assert!(
        nobody
            .file(&repo(), "model.safetensors")
            .expect_err("no server")
            .to_string()
            .contains("cannot be reached")
    );
    let offline = nobody
        .offline("HF_HUB_OFFLINE=1")
        .file(&repo(), "model.safetensors")
        .expect_err("offline")
        .to_string();
    assert!(
        offline.contains("not in the cache") && offline.contains("HF_HUB_OFFLINE=1"),
        "{offline}"
    );
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let elsewhere = Server::new(|asked, _| {
        assert!(asked.token.is_none());
        Answer { status: 200, body: data(), ..Answer::default() }
    });
    let address = elsewhere.address.clone();
    let server = Server::new(move |asked, _| {
        if asked.token.as_deref() != Some("Bearer secret") {
            return Answer { status: 401, ..Answer::default() };
        }
        let mut answer = good(asked, "model.safetensors", &data());
        answer
            .headers
            .iter_mut()
            .filter(|(n, _)| n == "location")
            .for_each(|(_, v)| *v = format!("{address}/blob"));
        answer
    });
    let place = Place::new();
    assert!(place.hub(&server).file(&repo(), "model.safetensors").is_err());
    place
        .hub(&server)
        .with_token("secret")
        .file(&repo(), "model.safetensors")
        .expect("with a token");
    assert_eq!(elsewhere.asked().len(), 1);
}

#[test]
fn a_renamed_repository_is_followed() {
    let server = Server::new(|asked, _| match asked.path.strip_prefix("/timm/vit/") {
        Some(rest) => Answer {
            status: 307,
            headers: vec![("location".into(), format!("/timm/new/{rest}"))],
            ..Answer::default()
        },
        None => good(asked, "model.safetensors", &data()),
    });
    Place::new().hub(&server).file(&repo(), "model.safetensors").expect("download");
}

#[test]
fn the_files_of_a_data_set_come_from_one_commit_and_then_from_the_cache() {
    let server = Server::new(|asked, _| match asked.path.as_str() {
        "/api/datasets/uoft-cs/cifar100/revision/main" => {
            let body = format!(
                r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "README.md"}}, {{"rfilename": "cifar100/a.parquet"}}]}}"#
            );
            Answer { status: 200, body: body.into_bytes(), ..Answer::default() }
        }
        path => {
            assert!(
                path == "/cdn/blob"
                    || path.contains(&format!("/datasets/uoft-cs/cifar100/resolve/{COMMIT}/")),
                "{path}"
            );
            good(asked, "a.parquet", &data())
        }
    });
    let (place, repo) = (Place::new(), Repository::dataset("uoft-cs/cifar100"));
    let found = place.hub(&server).files(&repo, ("cifar100/", ".parquet")).expect("download");
    assert_eq!(std::fs::read(found.path.join("cifar100/a.parquet")).expect("file"), data());
    let before = server.asked().len();
    assert_eq!(
        place
            .hub(&server)
            .offline("--offline")
            .files(&repo, ("cifar100/", ".parquet"))
            .expect("offline"),
        found
    );
    assert_eq!(server.asked().len(), before);
    assert!(
        place
            .hub(&server)
            .files(&repo, ("cifar10/", ".parquet"))
            .expect_err("no such file")
            .to_string()
            .contains("no file cifar10/*.parquet")
    );
}

#[test]
fn a_file_that_was_damaged_in_the_cache_is_noticed() {
    let server = Server::new(|asked, _| good(asked, "model.safetensors", &data()));
    let place = Place::new();
    let found = place.hub(&server).file(&repo(), "model.safetensors").expect("download");
    let blob = std::fs::canonicalize(found.path).expect("blob");
    let mut bytes = data();
    bytes[5000] ^= 1;
    std::fs::write(&blob, bytes).expect("damage");
    let message =
        place.hub(&server).file(&repo(), "model.safetensors").expect_err("damaged").to_string();
    assert!(
        message.contains("changed or damaged") && message.contains(&sha256(&data())),
        "{message}"
    );
}

#[test]
fn two_downloads_at_once_make_one_file() {
    let server = Server::new(|asked, _| good(asked, "model.safetensors", &data()));
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope
                .spawn(|| place.hub(&server).file(&repo(), "model.safetensors").expect("download"));
        }
    });
    assert_eq!(server.asked().iter().filter(|a| a.contains("GET /cdn")).count(), 1);
}

#[test]
fn a_busy_hub_is_waited_for_as_long_as_it_asks() {
    let server = Server::new(|asked, count| match count {
        1 => Answer {
            status: 429,
            headers: vec![("retry-after".into(), "1".into())],
            ..Answer::default()
        },
        2 => Answer { status: 500, ..Answer::default() },
        _ => good(asked, "model.safetensors", &data()),
    });
    let begin = std::time::Instant::now();
    let found = Place::new().hub(&server).file(&repo(), "model.safetensors");
    assert_eq!(found.expect("download").commit, COMMIT);
    assert!(begin.elapsed() >= std::time::Duration::from_secs(1));
    let long = refused(|_, _| Answer {
        status: 429,
        headers: vec![("retry-after".into(), "86400".into())],
        ..Answer::default()
    });
    assert!(long.contains("it asks to wait 86400 seconds"), "{long}");
}

#[test]
fn a_file_is_called_downloaded_once_and_only_when_it_is_right() {
    let shown = |right: bool| {
        let server = Server::new(move |asked, _| {
            let answer = good(asked, "model.safetensors", &data());
            let wrong = !right && asked.path == "/cdn/blob";
            if wrong { Answer { body: vec![7; answer.body.len()], ..answer } } else { answer }
        });
        let finished = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = finished.clone();
        let watch = move |_: &str, done: u64, all: u64| {
            count.fetch_add(usize::from(done == all), std::sync::atomic::Ordering::SeqCst);
        };
        let hub = Place::new().hub(&server).with_retries(1).watched(std::sync::Arc::new(watch));
        assert_eq!(hub.file(&repo(), "model.safetensors").is_ok(), right);
        finished.load(std::sync::atomic::Ordering::SeqCst)
    };
    assert_eq!((shown(true), shown(false)), (1, 0));
}

#[test]
fn a_short_commit_is_found_in_the_cache_or_said_to_be_one() {
    let server = Server::new(|asked, _| {
        match asked.path.contains(COMMIT) || asked.path.contains("/main/") {
            false if asked.path != "/cdn/blob" => {
                let code = vec![("x-error-code".into(), "RevisionNotFound".into())];
                Answer { status: 404, headers: code, ..Answer::default() }
            }
            _ => good(asked, "model.safetensors", &data()),
        }
    });
    let place = Place::new();
    let short = Repository::model(&format!("timm/vit@{}", &COMMIT[..7]));
    let message =
        place.hub(&server).file(&short, "model.safetensors").expect_err("unknown").to_string();
    assert!(message.contains("by all 40 digits only"), "{message}");
    let found = place.hub(&server).file(&repo(), "model.safetensors").expect("download");
    assert_eq!(place.hub(&server).file(&short, "model.safetensors").expect("cached"), found);
}

#[test]
fn jobs_that_start_together_never_see_half_a_cache() {
    let server = Server::new(|asked, _| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        match name {
            "blob" => good(asked, "", &data()),
            name => good(asked, name, &data()),
        }
    });
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..20 {
                    // Asks the hub each time, as the reference is missing, and reads at once.
                    let refs = place.folder.path().join("hub/models--timm--vit/refs/main");
                    let _ = std::fs::remove_file(refs);
                    for name in ["model.safetensors", "config.json"] {
                        let found = place.hub(&server).file(&repo(), name).expect("download");
                        assert_eq!(std::fs::read(&found.path).expect("whole").len(), data().len());
                    }
                }
            });
        }
    });
}
