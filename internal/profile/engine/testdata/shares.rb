class Work
  def spin(n)
    s = 0
    i = 0
    while i < n
      s += i
      i += 1
    end
    s
  end

  def heavy
    spin(3_000) + 1
  end

  def light
    spin(1_000) + 1
  end
end

w = Work.new
loop do
  w.heavy
  w.light
end
