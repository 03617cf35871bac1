(function (w) {
  var r = (w.rivulet = w.rivulet || {});
  if (!r.q && !r.ready) {
    r.q = [];
    'init track page identify reset flush on consent'.split(' ').map(function (n) {
      r[n] = function () {
        r.q.push([n, arguments, Date.now()]);
      };
    });
  }
})(window);
