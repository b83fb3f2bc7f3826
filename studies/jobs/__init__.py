"""Real jobs on real data: families of networks beside what each job is usually done with."""
