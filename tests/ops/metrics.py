"""A real Prometheus scrapes a real server; every metric of rules and dashboard is there."""

import json
import re
import shutil
import sys
import urllib.parse

import yaml

import common
from common import Camera, Failed, Process, Server, check, eventually, free_port, http, run, say

RULES = common.ROOT / "deploy/prometheus"
DASHBOARD = common.ROOT / "deploy/grafana/dashboard.json"
NAME = re.compile(r"\bheadhunt_[a-z0-9_]+")


def rules():
    promtool = common.PROMETHEUS / "promtool"
    said = run(promtool, "check", "rules", RULES / "rules.yml")
    found = re.search(r"(\d+) rules found", said)
    run(promtool, "test", "rules", "rules_test.yml", cwd=RULES)
    document = yaml.safe_load((RULES / "rules.yml").read_text())
    alerts = [rule for group in document["groups"] for rule in group["rules"]]
    for alert in alerts:
        notes = alert["annotations"]
        check(len(notes["runbook"]) > 40 and notes["summary"], f"{alert['alert']} has no runbook")
    say(f"promtool: {found.group(1)} rules, and their tests")
    return [alert["expr"] for alert in alerts]


def dashboard():
    document = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    places = set()
    for panel in document["panels"]:
        place = (panel["gridPos"]["x"], panel["gridPos"]["y"])
        check(place not in places, f"two panels at {place}")
        places.add(place)
    ids = [panel["id"] for panel in document["panels"]]
    check(len(ids) == len(set(ids)), "panels share ids")
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    say(f"dashboard: {len(panels)} panels, {len(expressions)} queries")
    return expressions


class Prometheus(Process):
    def __init__(self, folder, server):
        self.port = free_port()
        shutil.copy(RULES / "rules.yml", folder / "rules.yml")
        config = yaml.safe_load((common.ROOT / "docker/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(folder / "rules.yml")]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.metrics_address]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        run(common.PROMETHEUS / "promtool", "check", "config", file)
        super().__init__(
            common.PROMETHEUS / "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        )

    def api(self, path, **query):
        text = urllib.parse.urlencode(query)
        status, body = http(f"http://127.0.0.1:{self.port}/api/v1/{path}?{text}")
        answer = json.loads(body)
        check(status == 200 and answer["status"] == "success", f"{path}?{text}: {body[:500]}")
        return answer["data"]

    def query(self, expr):
        return self.api("query", query=expr)["result"]


def busy(server, site, camera):
    """One of everything that is measured: a camera, an upload, a verdict, a job, a call that fails."""
    grpcurl = [common.VENV / "grpcurl", "-plaintext"]
    upload = run(sys.executable, common.EXAMPLES / "upload.py", "--json", "--server", server.address, site.clip)
    events = [json.loads(line) for line in upload.splitlines() if "event_started" in line]
    check(events, f"the upload has no event:\n{upload}")
    run(*grpcurl, "-d", '{"name": "none"}', server.address, "headhunt.v1.AdminService/GetProfile", ok=False)
    run(common.BIN, "admin", "--server", f"http://{server.address}", "hunt", "--manifest",
        site.folder / "clips.csv", "--top-k", "2", timeout=120)
    eventually("the camera's first final score", lambda: server.value(
        f'headhunt_camera_last_score_timestamp_seconds{{camera="{camera.url}"}}'))


def main(site):
    expressions = rules() + dashboard()
    with Camera(site.clip) as camera, Server(
        site, feedback__dir=str(site.folder / "feedback"), admin__dir=str(site.folder / "admin")
    ) as server:
        server.ready()
        with Prometheus(site.folder, server) as prometheus, Process(
            sys.executable, common.EXAMPLES / "watch.py", "--json", "--early", "--server", server.address, camera.url
        ) as watcher:
            eventually("a scrape", lambda: prometheus.query("up == 1"))
            busy(server, site, camera)
            event = watcher.line(r'"event_started"')
            told = json.loads(event.string)
            run(sys.executable, common.EXAMPLES / "feedback.py", "--server", server.address,
                told["session"], "false-alarm", told["event_started"])
            names(prometheus, server, site, expressions)
            pages(server)
            eventually("rules to be evaluated", lambda: prometheus.api("rules")["groups"])
            unwell = [r["name"] for g in prometheus.api("rules")["groups"] for r in g["rules"] if r["health"] != "ok"]
            check(not unwell, f"rules that cannot be evaluated: {unwell}")
            answered(prometheus, expressions)
            departed(watcher, server, camera)
        dead(site, server)


def names(prometheus, server, site, expressions):
    """Every metric that an expression names is in the scrape. Those of running jobs are looked for while
    one runs."""
    wanted = set(NAME.findall("\n".join(expressions)))
    job = Process(common.BIN, "admin", "--server", f"http://{server.address}", "hunt", "--manifest",
                  site.folder / "clips.csv", "--segment-seconds", "0.2")
    missing = set(wanted)

    def look():
        found = set(prometheus.api("label/__name__/values"))
        missing.difference_update(found)
        return not missing

    try:
        eventually("every metric", look, 60)
    except Failed:
        raise Failed(f"not in the scrape: {', '.join(sorted(missing))}\n{job.text()[-500:]}") from None
    finally:
        job.wait(120)
    say(f"every one of the {len(wanted)} metrics that rules and dashboard name is scraped")


def pages(server):
    """The scrape itself: prefix, HELP and TYPE of everything, and no secrets."""
    text = server.metrics()
    typed = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    helped = set(re.findall(r"^# HELP (\S+)", text, re.M))
    check(typed == helped, f"without TYPE or HELP: {typed ^ helped}")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name = re.match(r"[a-z0-9_]+", line).group(0)
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            check(name.startswith("headhunt_") and (name in typed or base in typed), f"{line} has no TYPE")
    series = len([line for line in text.splitlines() if line and not line.startswith("#")])
    check(series < 3000, f"{series} series")
    say(f"the scrape: {len(typed)} metrics, {series} series, all with help and type")


def answered(prometheus, expressions):
    """Every query can be answered."""
    for expr in expressions:
        expr = expr.replace("$__rate_interval", "1m").replace("$instance", ".*")
        prometheus.query(expr)
    say(f"all {len(expressions)} queries are answered")


def departed(watcher, server, camera):
    check(f'camera="{camera.url}"' in server.metrics(), "the camera has no series while it is watched")
    watcher.signal(2)
    watcher.wait()
    eventually("the camera's series to go", lambda: "camera=" not in server.metrics())
    say("the series of a camera go when it is no longer watched")


def dead(site, server):
    with Prometheus(site.folder, server) as prometheus:
        eventually("a scrape", lambda: prometheus.query("up == 1"))
        server.child.kill()
        server.wait()
        eventually("the alert", lambda: prometheus.query('ALERTS{alertname="HeadhuntDown"}'))
    say("a server that is killed raises HeadhuntDown")
