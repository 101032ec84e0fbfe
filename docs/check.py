"""Checks the Markdown of this repository: python3 docs/check.py

Every relative link must lead to a file, and to a heading if it names one. Lines of text must not be
longer than 100 columns; tables and code may be. Every page in docs/ must be in docs/SUMMARY.md.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COLUMNS = 100


def pages():
    """Every Markdown file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def without_code(text):
    """The text with code blanked, line by line, so that line numbers stay."""
    lines, fence = [], False
    for line in text.splitlines():
        marker = line.lstrip().startswith("```")
        fence ^= marker
        lines.append("" if fence or marker else re.sub(r"`[^`]*`", lambda code: "x" * len(code[0]), line))
    return lines


def anchors(page):
    """The anchors of a page's headings, as forges make them."""
    fence, found = False, set()
    for line in page.read_text().splitlines():
        fence ^= line.lstrip().startswith("```")
        if not fence and (heading := re.match(r"#+\s+(.*)", line)):
            plain = re.sub(r"[^\w\s-]", "", LINK.sub("", heading[1])).strip().lower()
            found.add(plain.replace(" ", "-"))
    return found


def broken(page):
    """What is wrong with a page's links."""
    text = "\n".join(without_code(page.read_text()))
    for link in LINK.finditer(text):
        target, number = link[1], text.count("\n", 0, link.start()) + 1
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        to = (page.parent / path) if path else page
        if not to.exists():
            yield f"{page.relative_to(ROOT)}:{number}: {target} is not there"
        elif anchor and to.suffix == ".md" and anchor not in anchors(to):
            yield f"{page.relative_to(ROOT)}:{number}: {path} has no heading #{anchor}"


def too_long(page):
    """Lines of text that are too long, and that could be broken: not within code or a link."""
    for number, line in enumerate(without_code(page.read_text()), 1):
        longest = max(map(len, line.split()), default=0)
        if len(line) > COLUMNS > longest + 10 and not line.lstrip().startswith("|"):
            yield f"{page.relative_to(ROOT)}:{number}: {len(line)} columns"


def unlisted():
    """Pages of the book that its table of contents lacks."""
    summary = (ROOT / "docs/SUMMARY.md").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if page.name != "SUMMARY.md" and f"({page.relative_to(ROOT / 'docs')})" not in summary:
            yield f"{page.relative_to(ROOT)}: not in docs/SUMMARY.md"


def main():
    wrong = [*unlisted()]
    for page in pages():
        wrong += [*broken(page), *too_long(page)]
    print("\n".join(wrong) or "every link leads somewhere, every line is short enough")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
