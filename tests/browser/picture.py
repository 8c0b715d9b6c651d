"""The picture of the studio in the README: a chat beside the curves of a run (`pip install playwright`; the browser is the system's own).

    DANLU_HOME=~/.danlu python tests/browser/picture.py target/release/danlu smollm2 up-5m --out docs/studio.png

Serves the model from danlu's home, asks it two questions, opens the run, and lays both pages beside each other.
"""

import argparse
import base64
import re
import subprocess

from playwright.sync_api import expect, sync_playwright

parser = argparse.ArgumentParser()
parser.add_argument("danlu")
parser.add_argument("model")
parser.add_argument("run")
parser.add_argument("--out", default="docs/studio.png")
parser.add_argument("--chromium", default="/usr/bin/chromium")
args = parser.parse_args()
WIDTH, HEIGHT = 700, 620

server = subprocess.Popen([args.danlu, "serve", args.model, "--port", "0"], stdout=subprocess.PIPE, text=True)
try:
    address = next(filter(None, (re.search(r"http://[0-9.]+:[0-9]+", line) for line in server.stdout))).group(0)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_context(locale="en-US", viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        page.set_default_timeout(120_000)
        test = page.get_by_test_id
        page.goto(address)
        page.locator("#open-settings").click()
        page.locator("#temperature").fill("0")
        test("max-tokens").fill("80")
        page.locator("#open-settings").click()
        for turn, question in enumerate(["What is the capital of France?", "Name three rivers of Europe, as a list."], 1):
            test("text").fill(question)
            test("send").click()
            expect(test("again")).to_have_count(turn, timeout=120_000)
        test("good").last.click()
        expect(test("good").last).to_have_attribute("aria-pressed", "true")
        chat = page.screenshot()
        page.goto(f"{address}/#runs/{args.run}")
        expect(test("curve")).to_be_visible()
        run = page.screenshot()
        # The picture is two pictures in a page of its own.
        shown = "".join(f'<img src="data:image/png;base64,{base64.b64encode(one).decode()}">' for one in (chat, run))
        whole = browser.new_page(viewport={"width": 2 * WIDTH + 24, "height": HEIGHT + 16})
        whole.set_content(f'<body style="margin: 8px; display: flex; gap: 8px; background: #ddd7cc">{shown}')
        whole.screenshot(path=args.out)
        browser.close()
finally:
    server.terminate()
    server.wait(60)
