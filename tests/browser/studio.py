"""The studio in a real browser: Chromium driven by Playwright (`pip install playwright`; the browser is the system's own).

    python tests/browser/studio.py target/release/danlu MODEL_FOLDER [SECOND_FOLDER] [--out screenshots]

Starts `danlu serve` with the model (twice, under two names, when no second is given) in a home of its own, and does what a person does: a first
visit, a chat, stop, regenerate, edit, a model beside itself, side by side with a vote, a reload that keeps the history, a run that goes on, the Chinese interface,
a narrow screen. Each step's picture is kept. The first step that fails ends it.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from playwright.sync_api import TimeoutError, expect, sync_playwright

parser = argparse.ArgumentParser()
parser.add_argument("danlu")
parser.add_argument("model")
parser.add_argument("second", nargs="?")
parser.add_argument("--out", default="screenshots")
parser.add_argument("--chromium", default="/usr/bin/chromium")
args = parser.parse_args()

out = pathlib.Path(args.out)
out.mkdir(parents=True, exist_ok=True)
home = pathlib.Path(tempfile.mkdtemp(prefix="danlu-studio-"))
model = pathlib.Path(args.model).resolve()
if args.second:
    second = pathlib.Path(args.second).resolve()
else:
    # A folder's name is the model's, so the same weights get a second one.
    second = home / "second-model"
    shutil.copytree(model, second)

environment = {**os.environ, "DANLU_HOME": str(home / "home")}
server = subprocess.Popen(
    [args.danlu, "serve", str(model), str(second), "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
)


def log(step, page):
    page.screenshot(path=str(out / f"{step}.png"))
    print(f"ok  {step}", flush=True)


def row(step):
    return json.dumps(
        {"step": step, "kind": "train", "loss": 4 / (1 + step / 40), "tokens": step * 2048, "seconds": 0.2, "elapsed": step * 0.2,
         "tokens_per_second": 10240.0, "memory": 2e8}
    ) + "\n"


try:
    address = None
    for line in server.stdout:
        print(line, end="")
        found = re.search(r"http://[0-9.]+:[0-9]+", line)
        if found:
            address = found.group(0)
            break
    assert address, "the server did not start"

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
        page = context.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.set_default_timeout(60_000)
        test = page.get_by_test_id

        # The first visit.
        page.goto(address)
        expect(test("model").locator("option")).to_have_count(2)
        log("1-first-visit", page)

        # A short chat.
        page.locator("#open-settings").click()
        test("max-tokens").fill("24")
        page.locator("#open-settings").click()
        test("text").fill("What is the capital of France?")
        test("send").click()
        expect(test("again").first).to_be_visible(timeout=120_000)
        expect(test("answer")).to_have_count(1)
        assert test("answer").first.inner_text().strip(), "the answer is empty"
        log("2-chat", page)

        # A long answer that is stopped.
        page.locator("#open-settings").click()
        test("max-tokens").fill("1000")
        page.locator("#open-settings").click()
        test("text").fill("Write a very long story about a river, with many chapters.")
        test("text").press("Enter")
        expect(test("stop")).to_be_visible()
        expect(test("answer").nth(1)).not_to_be_empty()
        # A small model may have ended by itself, even between looking and clicking.
        try:
            test("stop").click(timeout=2_000)
        except TimeoutError:
            print("the answer ended before it was stopped")
        expect(test("send")).to_be_visible()
        log("3-stopped", page)

        # Regenerate, and turn back to the first version.
        page.locator("#open-settings").click()
        test("max-tokens").fill("24")
        page.locator("#open-settings").click()
        test("again").last.click()
        expect(test("versions").last).to_have_text("2/2", timeout=120_000)
        log("4-regenerated", page)

        # An edited question is a new version of it.
        test("edit").last.click()
        test("edit-text").fill("Name three rivers.")
        test("edit-send").click()
        expect(test("question").last).to_have_text("Name three rivers.")
        expect(test("again").last).to_be_visible(timeout=120_000)
        log("5-edited", page)

        # A model beside itself gives two answers.
        test("new").click()
        test("model").select_option(index=0)
        test("beside").select_option(index=1)
        test("text").fill("Name a colour.")
        test("send").click()
        expect(test("vote-first")).to_be_visible(timeout=120_000)
        names = test("pair").locator("article > h2").all_inner_texts()
        assert len(names) == 2 and names[0] == names[1], names

        # Two models side by side, and a vote.
        test("new").click()
        test("model").select_option(index=0)
        test("beside").select_option(index=2)  # after "one model" and the first model itself
        test("text").fill("Say hello to a friend.")
        test("send").click()
        expect(test("vote-first")).to_be_visible(timeout=120_000)
        log("6-side-by-side", page)
        test("vote-first").click()
        expect(test("vote-first")).to_have_attribute("aria-pressed", "true")
        test("good").first.click()
        expect(test("good").first).to_have_attribute("aria-pressed", "true")
        log("7-voted", page)
        test("tab-votes").click()
        expect(test("preferences")).to_be_visible()
        log("8-votes", page)

        # A reload keeps the history.
        test("tab-chat").click()
        page.reload()
        expect(test("chats").locator("li")).to_have_count(3)
        expect(test("question").first).to_have_text("Say hello to a friend.")
        log("9-reloaded", page)

        # A run that is written while the page looks.
        run = home / "home" / "runs" / "river"
        run.mkdir(parents=True)
        (run / "recipe.toml").write_text('name = "river"\n')
        planned = {"steps": 200, "tokens": 409600, "seconds": 60.0, "tokens_per_second": 9000.0, "memory": 210_000_000}
        (run / "run.json").write_text(json.dumps({"model_name": "river", "data": [], "model": None, "planned": planned}))
        metrics = run / "metrics.jsonl"
        metrics.write_text("".join(row(step) for step in range(1, 101)))
        page.goto(f"{address}/#runs/river")
        expect(test("run-step")).to_contain_text("100")
        expect(test("curve")).to_be_visible()
        with metrics.open("a") as file:
            file.writelines(row(step) for step in range(101, 161))
        expect(test("run-step")).to_contain_text("160", timeout=15_000)
        log("10-run", page)

        # Chinese, dark, narrow.
        page.locator("#language").click()
        expect(test("tab-chat")).to_have_text("聊天")
        test("tab-chat").click()
        log("11-chinese", page)
        page.locator("#theme").click()
        log("12-other-colours", page)
        page.set_viewport_size({"width": 390, "height": 780})
        page.reload()
        expect(test("text")).to_be_visible()
        expect(test("question").first).to_be_visible()
        wider = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wider, "the page is wider than a phone"
        log("13-narrow", page)
        browser.close()
        assert not problems, problems
    print("all steps hold")
finally:
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
    shutil.rmtree(home, ignore_errors=True)
