//! The snippet: records calls until the SDK is there, with the id that each event will have. If the page goes first, it beacons the
//! events itself. Invariant: nothing is stored, and nothing sent without consent given on this page, or under Global Privacy Control.
((r, q, at) => {
  if (r.on) return;
  r.q = q = [];
  'reset consent page flush identify init on track'.split(' ').map((name) => {
    r[name] = (...args) => {
      // A UUID of version 7 without hyphens: time, number of the call, random digits.
      q.push([name, args, (at = Date.now()), 0 + at.toString(16) + (q.length + 7000) + 8000 + Math.random().toFixed(12).slice(2)]);
    };
  });
  addEventListener('pagehide', (last) => {
    q.map(([name, [first]]) => (last[name] = first));
    // `granted` or nothing at `init`, or `true` at `consent`. Once the SDK has taken over, the list is empty.
    if (/[tu]/.test('consent' in last ? last.consent : (last.init || q).consent) && !navigator.globalPrivacyControl)
      q.map(([name, [first, second, third], timestamp, id]) => {
        try {
          if (/[kgy]/.test(name))
            // Without a host the brackets make an empty text of it.
            navigator.sendBeacon(
              [last.init.host] + '/v1/events?key=' + last.init.key,
              JSON.stringify({
                metadata: { track: second, page: first }[name] || { traits: second },
                timestamp,
                anonymous_id: localStorage['rv:a'] || q[0][3],
                user_id: last.identify,
                event_id: (third || q).eventId || id,
                event_type: { track: first, page: 'page_view' }[name] || name,
              }),
            );
        } catch {}
      });
  });
})((window.rivulet = window.rivulet || {}));
