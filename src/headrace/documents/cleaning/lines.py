"""Lines: blanks, bullets, and what a page says besides its text."""

from __future__ import annotations

import re

_WITHIN = re.compile(r"(?<=\S)(?:[ \t]{2,}|\t)(?=\S)")
_BLANK_LINES = re.compile(r"\n{3,}")
_BULLET = re.compile(r"(?m)^([ \t]*)[•◦▪▫‣⁃∙●○■□▶►➤➢❖⁍·✓✔➔]+[ \t]*(?=[^\s•◦▪▫‣⁃∙●○■□▶►➤➢❖⁍·✓✔➔])")
_LONGEST_NOTICE = 400
_NOTICES = (
    r"skip to (?:main |page )?(?:content|navigation)",
    r"(?:back|scroll|return) to (?:the )?top",
    r"share(?: this)?(?: (?:article|post|page|story))?(?: (?:on|via|with) [\w ,/&]{1,80})?",
    r"(?:tweet|pin it|print this page|email this|copy link|follow us(?: on [\w ,/&]{1,80})?)",
    r"(?:(?:please )?subscribe|sign up)(?: now| today)?"
    r" (?:to|for) (?:our|the|my) (?:weekly |free |daily )?(?:newsletter|mailing list)[^\n]{0,100}",
    r"(?:accept|reject|allow|decline)(?: all)?(?: cookies)",
    r"(?:cookie|privacy) (?:settings|preferences)|manage (?:cookies|consent)",
    r"(?:we|this (?:web ?)?site|our (?:web ?)?site)(?: and our partners)? uses? cookies[^\n]{0,300}",
    r"by (?:continuing|using)[^\n]{0,80} you (?:agree|consent) to[^\n]{0,80} cookies[^\n]{0,200}",
    r"(?:advertisement|sponsored(?: content)?|related (?:articles|posts|stories)|you (?:may|might) also like)",
    r"(?:leave|post|add) a (?:comment|reply)|(?:read|show|load) more|continue reading",
    r"home(?: ?(?:>|»|›|→|/|\|) ?[\w &',-]{1,60}){1,8}",
)
_NOTICE = re.compile(rf"(?i)[\s>*_#-]{{0,8}}(?:{'|'.join(_NOTICES)})[\s.!:…»>*_]{{0,8}}")
# The words that a notice begins with; most lines begin with another and need no look at the long pattern.
_FIRST_WORDS = (
    "skip back scroll return share tweet pin print email copy follow please subscribe sign accept reject allow decline "
    "cookie privacy manage we this our by advertisement sponsored related you leave post add read show load continue "
    "home"
)
_BEGINNINGS = frozenset(_FIRST_WORDS.split())
_FIRST = re.compile(r"[\s>*_-]{0,8}([A-Za-z]{2,13})")


def whitespace(text: str) -> str:
    """No blanks at the ends of lines, one between words, no more than one blank line; indentation stays."""
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    return _BLANK_LINES.sub("\n\n", _WITHIN.sub(" ", text))


def bullets(text: str) -> str:
    """A list's item begins with '- ', whatever stood there."""
    return text if text.isascii() else _BULLET.sub(r"\1- ", text)


def boilerplate(text: str) -> str:
    """Without the lines that are no part of the text: cookie notices, "share this", ways back. In doubt they stay."""
    lines = text.split("\n")
    kept = [line for line in lines if not _is_notice(line)]
    return text if len(kept) == len(lines) else "\n".join(kept)


def _is_notice(line: str) -> bool:
    first = _FIRST.match(line)
    if first is None or first[1].lower() not in _BEGINNINGS or len(line) > _LONGEST_NOTICE:
        return False
    return _NOTICE.fullmatch(line) is not None
