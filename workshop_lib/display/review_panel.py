"""Where a person says what a ticket is: one ticket at a time with the rubric at hand, by mouse, by keyboard, or by a plain call.

panel = ReviewPanel(reviews, reviewer="Ada")
panel                                                     # the form, in a live notebook
panel.answer(category="billing", priority="P2", needs_human=True)     # the same without a click; panel.answer("2 2 y") as well
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.display.theme import BLUE, GREEN, GREY, RED
from workshop_lib.operations.review import Review, ReviewStore, ReviewsUnsaved, Saved, Verdict, shown
from workshop_lib.triage.rubric import Rubric, load_rubric
from workshop_lib.triage.schema import Category, Priority, Ticket

SHORTHAND = "category 1-8, priority 0-3, y or n, then any note: 2 2 y asks for a refund"


class ReviewPanel:
    """One reviewer's place in a review. It opens at the first ticket without a review, and shows no model's answer and nobody else's."""

    def __init__(self, store: ReviewStore, *, reviewer: str = "", rubric: Rubric | None = None) -> None:
        """
        Args:
            store: with the tickets to review.
            reviewer: whose reviews these are; may be entered in the form as well.
            rubric: None: the one of the shipped labels.
        """
        self.store, self.reviewer, self.rubric = store, reviewer, rubric or load_rubric()
        self.categories: Sequence[Category] = list(self.rubric.categories)
        """In order of precedence, which is that of their digits, from 1."""
        self.ticket: Ticket | None = store.next_unreviewed(reviewer)
        """The one that is shown; None: all are done."""
        self._shown: Review | None = None
        self._form: _Form | None = None
        self._look()

    @property
    def mine(self) -> Review | None:
        """What this reviewer has already said about the ticket that is shown."""
        if self.ticket is None:
            return None
        found = self.store.reviews(reviewer=self.reviewer.strip())
        return next((r for r in found if r.ticket_id == self.ticket.id), None)

    @property
    def progress(self) -> tuple[int, int]:
        """How many are done, and how many there are."""
        return len(self.store.reviews(reviewer=self.reviewer.strip())), len(self.store.tickets)

    def answer(
        self,
        shorthand: str = "",
        *,
        category: str | None = None,
        priority: str | None = None,
        needs_human: bool | None = None,
        notes: str = "",
    ) -> Saved:
        """Save a verdict on the ticket that is shown, and go to the next one without.

        Args:
            shorthand: all of it in short, e.g. "2 2 y wants a refund", in place of the rest.
            category, priority: by name.
            needs_human: may be left out for P0 and P1, where it is always true.
            notes: for who reads the label later.

        Raises:
            ValueError: something is missing, unknown, or contradicts itself.
            WorkshopError: as `ReviewStore.save`.
        """
        if self.ticket is None:
            raise ValueError("every ticket is reviewed: go to one with panel.go(ticket_id) to change it")
        saved = self._save(self.read(shorthand) if shorthand else _verdict(category, priority, needs_human, notes))
        self.go(self.store.next_unreviewed(self.reviewer.strip(), after=self.ticket.id))
        return saved

    def read(self, shorthand: str) -> Verdict:
        """The verdict that a line in short means.

        Raises:
            ValueError: it means none; the message says how it is written.
        """
        found = re.fullmatch(r"\s*([1-8])[\s,]*p?([0-3])[\s,]*([yn]\b|$)(.*)", shorthand, re.I | re.S)
        if found is None:
            raise ValueError(f"{shorthand!r} is not understood. Write {SHORTHAND}")
        needs = {"y": True, "n": False}.get(found[3].lower())
        return _verdict(self.categories[int(found[1]) - 1], f"P{found[2]}", needs, found[4].strip())

    def go(self, where: Ticket | str | None) -> None:
        """Show a ticket of the review; None: say that all are done.

        Raises:
            KeyError: there is none of this id.
        """
        self.ticket = self.store.tickets[where] if isinstance(where, str) else where
        if self._form is None:
            self._look()
        else:
            self._form.show()

    def skip(self) -> None:
        """Show the next ticket without a review, and leave this one as it is."""
        if self.ticket is not None:
            self.go(self.store.next_unreviewed(self.reviewer.strip(), after=self.ticket.id))

    def previous(self) -> None:
        """Show the ticket before this one, reviewed or not; from the end, the last one."""
        ids = list(self.store.tickets)
        if ids:
            self.go(ids[-1 if self.ticket is None else max(0, ids.index(self.ticket.id) - 1)])

    def markup(self) -> str:
        """The ticket that is shown, as HTML with everything escaped."""
        total = len(self.store.tickets)
        if self.ticket is None:
            who = f" by {html.escape(self.reviewer)}" if self.reviewer else ""
            return f"<div class='mathjax_ignore'><p><b>All {total} tickets are reviewed{who}.</b> Thank you.</p></div>"
        t = self.ticket
        place = list(self.store.tickets).index(t.id) + 1
        badge = ""
        if t.customer_tier is not None:
            style = f"border:1px solid {GREY};border-radius:1em;padding:0 .6em;color:{GREY};font-size:.85em"
            badge = f" <span style='{style}'>{html.escape(t.customer_tier)} plan: context only</span>"
        return (
            f"<div class='mathjax_ignore' style='border:1px solid #ccc;border-left:5px solid {BLUE};padding:.5em 1em;"
            "line-height:1.45;max-width:62em'>"
            f"<div style='color:{GREY};font-size:.85em'>ticket {place} of {total}, {html.escape(t.id)}{badge}</div>"
            f"<div style='font-weight:bold;margin:.3em 0'>{html.escape(t.subject or '(no subject)')}</div>"
            f"<div style='white-space:pre-wrap;overflow-wrap:anywhere'>{html.escape(t.body)}</div></div>"
        )

    def widget(self) -> Any:
        """The form, made at the first call. It needs a live kernel."""
        if self._form is None:
            self._form = _Form(self)
        return self._form.box

    def _look(self) -> Review | None:
        """`mine`, from now on that which this window has shown: what another window saves later is told when it is replaced."""
        self._shown = self.mine
        return self._shown

    def _save(self, verdict: Verdict) -> Saved:
        assert self.ticket is not None
        now, known, seen = self.mine, self._shown, 0
        if now is not None and known is not None and known.reviewer == now.reviewer:
            # One that could not be written at first has had no revision until then.
            seen = now.revision if replace(known, revision=now.revision) == now else known.revision
        try:
            saved = self.store.save(self.ticket.id, verdict, reviewer=self.reviewer, seen=seen)
        except ReviewsUnsaved:
            with contextlib.suppress(WorkshopError):
                self._look()  # kept in memory: this window's own
            raise
        self._shown = saved.review
        return saved

    def __repr__(self) -> str:
        done, total = self.progress
        now = "all done" if self.ticket is None else f"now {self.ticket.id}: {self.ticket.subject or '(no subject)'}"
        return f"{done} of {total} tickets reviewed by {self.reviewer or '(no name)'}; {now}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        # With the ticket in plain HTML beside the form, a saved notebook shows what was there.
        bundle = self.widget()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/html": self.markup(), "text/plain": repr(self)}


class _Form:
    """The widgets of a panel. What is picked is saved as soon as it is complete; errors are shown below, since of a button's Jupyter shows none."""

    def __init__(self, panel: ReviewPanel) -> None:
        import ipywidgets as w

        self._panel = panel
        self._chosen: dict[str, Any] = {}
        self._quiet = False  # set while the form is filled by us
        self._name = w.Text(
            value=panel.reviewer, description="Reviewer", placeholder="your name", continuous_update=False
        )
        self._bar = w.IntProgress(min=0, max=max(1, len(panel.store.tickets)), layout=w.Layout(width="16em"))
        self._count, self._card, self._status = w.HTML(), w.HTML(), w.HTML()
        self._buttons: dict[str, dict[Any, Any]] = {
            "category": {c: self._button(f"{i} {c}", c) for i, c in enumerate(panel.categories, 1)},
            "priority": {p: self._button(str(p), p) for p in Priority},
            "needs_human": {True: self._button("yes (y)"), False: self._button("no (n)")},
        }
        for name, group in self._buttons.items():
            for value, button in group.items():
                button.on_click(self._guarded(lambda name=name, value=value: self._choose(name, value)))
        wide = w.Layout(width="62em")
        self._notes = w.Textarea(placeholder="notes, if a label needs any", continuous_update=False, layout=wide)
        self._short = w.Text(placeholder=SHORTHAND, continuous_update=False, layout=wide)
        self._short.description = "In short"
        back, skip, after = (w.Button(description=d) for d in ("previous", "skip", "save and next"))
        after.button_style = "primary"
        back.on_click(self._guarded(panel.previous))
        skip.on_click(self._guarded(panel.skip))
        after.on_click(self._guarded(self._next))
        self._name.observe(lambda change: self._guarded(self._rename)(), names="value")
        self._notes.observe(lambda change: self._guarded(self._autosave)(), names="value")
        self._short.observe(lambda change: self._guarded(self._in_short)(), names="value")
        rubric = w.Accordion(
            [w.HTML(f"<div style='line-height:1.45;max-width:62em'>{_rendered(panel.rubric.markdown)}</div>")]
        )
        rubric.set_title(0, f"The whole rubric ({panel.rubric.version})")
        says = {"category": panel.rubric.categories, "priority": panel.rubric.priorities}
        parts: list[Any] = [w.HBox([self._name, self._bar, self._count]), self._card]
        for name, group in self._buttons.items():
            parts.append(w.HTML(f"<b>{name}</b>"))
            if name == "needs_human":
                parts.append(
                    w.HBox([*group.values(), w.HTML("must a person decide before anything is answered or done?")])
                )
                continue
            parts += [w.HBox([b, w.HTML(_small(says[name][value]))]) for value, b in group.items()]  # type: ignore[index]
        self.box = w.VBox([*parts, self._notes, self._short, w.HBox([back, skip, after, self._status]), rubric])
        self.show()

    def show(self) -> None:
        """Draw the panel's ticket, with what this reviewer has said about it."""
        panel = self._panel
        mine, (done, total) = panel._look(), panel.progress
        self._card.value, self._bar.value = panel.markup(), done
        self._count.value = f"{done} of {total} reviewed"
        self._chosen = (
            {}
            if mine is None
            else {name: getattr(mine.verdict, name) for name in ("category", "priority", "needs_human")}
        )
        self._quiet = True
        self._notes.value = "" if mine is None else mine.verdict.notes
        self._quiet = False
        self._colour()
        self._say(f"saved: {shown(mine.verdict)}" if mine is not None else "", GREEN)

    def _choose(self, name: str, value: Any) -> None:
        self._chosen[name] = value
        if name == "priority" and Priority(value).is_urgent:
            self._chosen["needs_human"] = True
        self._colour()
        self._autosave()

    def _autosave(self) -> str:
        """Save what is picked, if that is something new; what there is to tell."""
        if self._quiet or self._panel.ticket is None:
            return ""
        missing = [name for name in self._buttons if name not in self._chosen]
        if missing:
            self._say(f"not yet saved: {', '.join(missing)} missing", GREY)
            return ""
        verdict, mine = Verdict(**self._chosen, notes=self._notes.value.strip()), self._panel.mine
        # Of revision 0 is what could not be written yet: that is tried again.
        if mine is not None and mine.revision and mine.verdict == verdict:
            self._say(f"saved: {shown(verdict)}", GREEN)
            return ""
        saved = self._panel._save(verdict)
        done, total = self._panel.progress
        self._bar.value, self._count.value = done, f"{done} of {total} reviewed"
        self._say(saved.note or f"saved: {shown(saved.review.verdict)}", RED if saved.note else GREEN)
        return saved.note

    def _next(self) -> None:
        missing = [name for name in self._buttons if name not in self._chosen]
        if missing and self._panel.ticket is not None:
            raise ValueError(f"choose {', '.join(missing)} first, or skip this ticket")
        note = self._autosave()
        self._panel.skip()
        if note:
            self._say(note, RED)

    def _in_short(self) -> None:
        line, self._short.value = self._short.value, ""
        if line.strip():
            said = self._panel.answer(line)
            saved = f"saved {said.review.ticket_id}: {shown(said.review.verdict)}"
            self._say(said.note or saved, RED if said.note else GREEN)

    def _rename(self) -> None:
        self._panel.reviewer = self._name.value.strip()
        self._panel.go(self._panel.store.next_unreviewed(self._panel.reviewer))

    def _colour(self) -> None:
        idle = self._panel.ticket is None
        urgent = "priority" in self._chosen and Priority(self._chosen["priority"]).is_urgent
        for name, group in self._buttons.items():
            for value, button in group.items():
                button.button_style = "success" if self._chosen.get(name) == value and name in self._chosen else ""
                button.disabled = idle or (urgent and value is False)

    def _button(self, words: str, value: Category | Priority | None = None) -> Any:
        import ipywidgets as w

        says: dict[Any, str] = {**self._panel.rubric.categories, **self._panel.rubric.priorities}
        return w.Button(
            description=words, tooltip=says.get(value, words), layout=w.Layout(width="11em", flex="0 0 auto")
        )

    def _say(self, words: str, colour: str) -> None:
        self._status.value = f"<span role='status' style='color:{colour}'>{html.escape(words)}</span>"

    def _guarded(self, action: Callable[..., Any]) -> Callable[..., None]:
        def run(*_: Any) -> None:
            try:
                action()
            except (WorkshopError, ValueError) as error:
                self._say(str(error), RED)

        return run


def _verdict(category: str | None, priority: str | None, needs_human: bool | None, notes: str) -> Verdict:
    if category is None or priority is None:
        raise ValueError("a verdict takes a category and a priority")
    for kind, value in ((Category, category), (Priority, priority)):
        if value not in list(kind):
            raise ValueError(f"there is no {kind.__name__.lower()} {value!r}: choose from {', '.join(kind)}")
    needs = Priority(priority).is_urgent or needs_human
    if needs is None or (needs_human is False and needs):
        raise ValueError("say needs_human" if needs is None else f"priority {priority} implies needs_human")
    return Verdict(Category(category), Priority(priority), needs, notes)


def _rendered(markdown: str) -> str:
    """Markdown as HTML; HTML in it is escaped."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("js-default").render(markdown))


def _small(markdown: str) -> str:
    from markdown_it import MarkdownIt

    style = "font-size:.85em;line-height:1.3;color:#444;max-width:52em;display:block;white-space:normal"
    return f"<span style='{style}'>{MarkdownIt('js-default').renderInline(markdown)}</span>"
